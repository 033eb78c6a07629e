package shim

// Version is the packet version of this source.
const Version = 1

// MaxBody is the largest JSON body in bytes.
const MaxBody = 64 << 10

// HeaderSize is the size of a packet's header in bytes.
const HeaderSize = 8

// Type is a packet's type.
type Type uint8

// Packet types; doc.go has the table.
const (
	Ok Type = 1 + iota
	Error
	Hello
	Start
	Resume
	Signal
	Resize
	CloseStdin
	Attach
	Release
	Forget
	Delete
	Exited
	LogLost
	Adopt
	List
)

// ProcessRef names a process: Init or an added one.
type ProcessRef struct {
	Process string `json:"process"`
}

// Adoption gives a spare shim its container.
type Adoption struct {
	Dir     string `json:"dir"` // the container's directory
	ID      string `json:"id"`
	Bundle  string `json:"bundle"`
	Runtime string `json:"runtime"`
}

// HelloReply describes the shim to whoever connects.
type HelloReply struct {
	ID   string `json:"id"`
	Self Self   `json:"self"`
}

// ListRequest asks for the processes whose names come after one, "" for the first.
type ListRequest struct {
	After string `json:"after,omitempty"`
}

// ListReply has as many names as fit into a packet, in their order.
type ListReply struct {
	Processes []string `json:"processes,omitempty"`
	More      bool     `json:"more,omitempty"` // after the last of them
}

// SignalRequest asks for a signal to one process of the shim.
type SignalRequest struct {
	Process string `json:"process"`
	Signal  int    `json:"signal"` // number, see signal(7)
}

// ResizeRequest asks for a new terminal size.
type ResizeRequest struct {
	Process string `json:"process"`
	Width   uint16 `json:"width"`  // columns
	Height  uint16 `json:"height"` // rows
}

// AttachRequest hands a client's connection to the shim, which from then on
// speaks Docker's stream on it: raw if the process has a terminal, else
// multiplexed with eight-byte headers.
type AttachRequest struct {
	Process string `json:"process"`
	Stdin   bool   `json:"stdin,omitempty"`
	Stdout  bool   `json:"stdout,omitempty"`
	Stderr  bool   `json:"stderr,omitempty"`
	// DetachKeys is the byte sequence that detaches; empty: ctrl-p ctrl-q on a
	// terminal, none otherwise.
	DetachKeys []byte `json:"detach_keys,omitempty"`
	// Read is what the sender has already read from the connection.
	Read []byte `json:"read,omitempty"`
}

// LogLostNote says that lines could not be logged.
type LogLostNote struct {
	Process string `json:"process"`
	Lines   int64  `json:"lines"` // since the process started
	Reason  string `json:"reason"`
}
