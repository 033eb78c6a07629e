package criu

import "strconv"

// Type says what a request wants, and what a response is about.
type Type int32

// The types that are used (criu_req_type).
const (
	Dump         Type = 1
	Restore      Type = 2
	PreDump      Type = 4
	Notify       Type = 6
	FeatureCheck Type = 9
	Version      Type = 10
)

func (t Type) String() string {
	switch t {
	case Dump:
		return "DUMP"
	case Restore:
		return "RESTORE"
	case PreDump:
		return "PRE_DUMP"
	case Notify:
		return "NOTIFY"
	case FeatureCheck:
		return "FEATURE_CHECK"
	case Version:
		return "VERSION"
	}
	return strconv.Itoa(int(t))
}

// CgroupMode is how CRIU restores cgroups (criu_cg_mode).
type CgroupMode uint32

// The modes that the command line names.
const (
	CgroupIgnore CgroupMode = 0
	CgroupSoft   CgroupMode = 3
	CgroupFull   CgroupMode = 4
	CgroupStrict CgroupMode = 5
)

// Pair is a key and what it stands for, in maps of mounts and namespaces.
type Pair struct{ Key, Value string }

// InheritFD gives a descriptor of criu's a name that an image knows.
type InheritFD struct {
	Key string
	FD  int
}

// CgroupRoot is where cgroups of a v1 controller, or "" for v2, are restored.
type CgroupRoot struct{ Controller, Path string }

// Options are what DUMP, PRE_DUMP and RESTORE take (criu_opts).
type Options struct {
	ImagesFD        int // of criu's, as all
	WorkFD          int // -1: the images'
	Pid             int
	Root            string
	LogFile         string
	LeaveRunning    bool
	ExtUnixSockets  bool
	TCPEstablished  bool
	TCPSkipInFlight bool
	EvasiveDevices  bool
	ShellJob        bool
	FileLocks       bool
	LinkRemap       bool
	AutoDedup       bool
	LazyPages       bool
	OrphanPtsMaster bool
	RestoreSibling  bool
	TrackMemory     bool
	ParentImage     string
	PageServer      string // address
	PageServerPort  int
	CgroupMode      CgroupMode
	CgroupRoots     []CgroupRoot
	FreezeCgroup    string
	Mounts          []Pair // external: place in the container → name; name → source on the host
	External        []string
	InheritFDs      []InheritFD
	JoinNamespaces  []Pair
	EmptyNamespaces uint32
	StatusFD        int // 0: none
	ConfigFile      string
	LSMProfile      string
	LSMMountContext string
}

// logLevel is debug: the log is what tells a failure's reason.
const logLevel = 4

// Request is a criu_req.
type Request struct {
	Type          Type
	Options       *Options
	NotifySuccess bool
	Features      Features // what FEATURE_CHECK asks for
}

// Features are those of CRIU and the kernel that may be missing.
type Features struct{ MemoryTracking, LazyPages bool }

// Encode returns the request's bytes. The numbers are rpc.proto's.
func (r *Request) Encode() []byte {
	var m message
	m.required(1, uint64(r.Type))
	if r.Options != nil {
		m.bytes(2, r.Options.encode())
	}
	m.flag(3, r.NotifySuccess)
	if r.Type == FeatureCheck {
		var features message
		features.flag(1, r.Features.MemoryTracking)
		features.flag(2, r.Features.LazyPages)
		m.bytes(5, features)
	}
	return m
}

func (o *Options) encode() []byte {
	var m message
	m.required(1, uint64(o.ImagesFD))
	m.number(2, uint64(o.Pid))
	m.flag(3, o.LeaveRunning)
	m.flag(4, o.ExtUnixSockets)
	m.flag(5, o.TCPEstablished)
	m.flag(6, o.EvasiveDevices)
	m.flag(7, o.ShellJob)
	m.flag(8, o.FileLocks)
	m.number(9, logLevel)
	m.text(10, o.LogFile)
	if o.PageServer != "" {
		var server message
		server.text(1, o.PageServer)
		server.number(2, uint64(o.PageServerPort))
		m.bytes(11, server)
	}
	m.flag(12, true) // notify_scripts
	m.text(13, o.Root)
	m.text(14, o.ParentImage)
	m.flag(15, o.TrackMemory)
	m.flag(16, o.AutoDedup)
	if o.WorkFD >= 0 {
		m.required(17, uint64(o.WorkFD))
	}
	m.flag(18, o.LinkRemap)
	for _, mount := range o.Mounts {
		m.pair(23, mount)
	}
	o.encodeCgroups(&m)
	m.flag(26, o.RestoreSibling)
	for _, inherit := range o.InheritFDs {
		var one message
		one.text(1, inherit.Key)
		one.required(2, uint64(inherit.FD))
		m.bytes(27, one)
	}
	for _, external := range o.External {
		m.text(37, external)
	}
	m.number(38, uint64(o.EmptyNamespaces))
	for _, ns := range o.JoinNamespaces {
		m.pair(39, ns)
	}
	m.flag(46, o.TCPSkipInFlight)
	m.flag(48, o.LazyPages)
	m.number(49, uint64(o.StatusFD))
	m.flag(50, o.OrphanPtsMaster)
	m.text(51, o.ConfigFile)
	m.text(53, o.LSMProfile)
	m.text(63, o.LSMMountContext)
	return m
}

func (o *Options) encodeCgroups(m *message) {
	m.flag(24, true) // manage_cgroups, for a criu that knows no modes
	for _, root := range o.CgroupRoots {
		var one message
		one.text(1, root.Controller)
		one.text(2, root.Path)
		m.bytes(25, one)
	}
	m.required(34, uint64(o.CgroupMode))
	m.text(44, o.FreezeCgroup)
}

func (m *message) pair(field int, pair Pair) {
	var one message
	one.bytes(1, []byte(pair.Key))
	one.bytes(2, []byte(pair.Value))
	m.bytes(field, one)
}

// Response is a criu_resp.
type Response struct {
	Type     Type
	Success  bool
	Script   string // NOTIFY: what happens
	Pid      int    // NOTIFY and RESTORE: the first process
	Errno    int
	Message  string
	Version  int // as 31701 for 3.17.1
	Features Features
}

// DecodeResponse reads a response.
func DecodeResponse(data []byte) (*Response, error) {
	r := new(Response)
	err := fields(data, func(field int, number uint64, data []byte) error {
		switch field {
		case 1:
			r.Type = Type(int32(number))
		case 2:
			r.Success = number != 0
		case 4: // criu_restore_resp
			return fields(data, func(field int, number uint64, _ []byte) error {
				if field == 1 {
					r.Pid = int(int32(number))
				}
				return nil
			})
		case 5:
			return fields(data, r.notify)
		case 7:
			r.Errno = int(int32(number))
		case 8:
			return fields(data, r.features)
		case 9:
			r.Message = string(data)
		case 10:
			return r.version(data)
		}
		return nil
	})
	return r, err
}

func (r *Response) notify(field int, number uint64, data []byte) error {
	switch field {
	case 1:
		r.Script = string(data)
	case 2:
		r.Pid = int(int32(number))
	}
	return nil
}

func (r *Response) features(field int, number uint64, _ []byte) error {
	switch field {
	case 1:
		r.Features.MemoryTracking = number != 0
	case 2:
		r.Features.LazyPages = number != 0
	}
	return nil
}

// version makes one number of criu_version. A build from its git tree counts
// as the next release.
func (r *Response) version(data []byte) error {
	var major, minor, sublevel int
	git := false
	err := fields(data, func(field int, number uint64, data []byte) error {
		switch field {
		case 1:
			major = int(int32(number))
		case 2:
			minor = int(int32(number))
		case 3:
			git = string(data) != "" && string(data) != "0"
		case 4:
			sublevel = int(int32(number))
		}
		return nil
	})
	if git {
		minor, sublevel = minor+1, 0
	}
	r.Version = major*10000 + minor*100 + sublevel
	return err
}
