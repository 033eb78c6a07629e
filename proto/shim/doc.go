// Package shim is the contract between the supervisor (package runtime), the
// shim and engined's attach: file names of a container's directory, the JSON
// in them, and the packets on the shim's socket.
//
// # Directory
//
//	STATE-DIR/ID/
//	├── container.json     supervisor   Container: what to run and with which runtime
//	├── shim.sock          supervisor   SOCK_SEQPACKET, bound before the shim starts, inherited as fd 3
//	├── shim.json          shim         Self: pid and start time, written before it answers anything
//	├── shim.log           shim         its standard error
//	├── runtime.log        the runtime  --log, JSON lines
//	├── ttyN.sock          shim         console socket, while a terminal is handed over
//	├── doomed             supervisor   empty: the container's creation was cut off or failed, it is to go
//	└── PROCESS/           "init", or the name given to AddProcess
//	    ├── request.json   supervisor   Request
//	    ├── process.json   supervisor   specs.Process of an added process, for `RUNTIME exec --process`
//	    ├── pid            the runtime  --pid-file
//	    ├── runtime.log    the runtime  --log of an added process's start
//	    ├── criu.work/     the runtime  --work-path of a restore, for criu's log
//	    ├── started.json   shim         Started; with create_only replaced by Resume
//	    ├── exit.json      shim         Exit
//	    └── lost.json      supervisor   Exit, when the shim died before it could write exit.json
//
// Each file is written once, whole (temporary name, rename), by the one writer
// named above. Recovery is reading: exit.json, else lost.json, says how a
// process ended; the packets only say that it is time to look.
//
// # Starting
//
// `shim ID BUNDLE RUNTIME` with the container's directory as working directory,
// fd 3 the listening socket, stdin and stdout /dev/null, stderr shim.log. It makes
// a session of its own, and starts no process until a Start packet names one.
//
// Or ahead: `shim --spare STATE-DIR BLANKS` with fd 3 one end of a SOCK_SEQPACKET
// pair, on which one packet comes: Adopt, with an Adoption as body and two
// descriptors, the listening socket and shim.log. From then on it is what it would
// have been if started so, its command line too. It exits when the other end is
// closed before that, as by the supervisor's death. An Adopt that was sent is
// carried out whether or not its sender still lives.
//
// # Packets
//
// One SOCK_SEQPACKET message is one packet: an eight-byte header, little
// endian, then a JSON body of at most MaxBody bytes, then file descriptors as
// SCM_RIGHTS.
//
//	byte 0     version, 1
//	byte 1     type
//	bytes 2-3  zero
//	bytes 4-7  request id, chosen by the client; 0 in what the shim says unasked
//
// Every request is answered by one packet with its request id, Ok or Error.
// Requests may overlap, answers come in any order.
//
//	request      body             fds   Ok's body  when it is answered
//	Hello        -                -     HelloReply at once; from then on this connection gets the unasked packets
//	Start        ProcessRef       -     Started    the process named by PROCESS/request.json runs (or is created); its error otherwise
//	Resume       -                -     Started    `RUNTIME start` is done, after a Start whose Request said create_only
//	Signal       SignalRequest    -     -          the signal is sent
//	Resize       ResizeRequest    -     -          the terminal has its size
//	CloseStdin   ProcessRef       -     -          the process's stdin is closed
//	Attach       AttachRequest    1     -          the connection is the shim's (its one fd)
//	Release      ProcessRef       -     -          output held for Request.AwaitAttach flows
//	Forget       ProcessRef       -     -          an exited process's descriptors and memory are given back
//	List         ListRequest      -     ListReply  at once: the processes that were started and not forgotten
//	Delete       -                -     -          `RUNTIME delete --force` is done; the shim then exits
//
//	unasked      body             when
//	Exited       ProcessRef       exit.json is there
//	LogLost      LogLostNote      lines could not be written (disk full)
//
// A packet of another version is answered by Error with kind FailedPrecondition,
// one of unknown type with NotImplemented; both leave the connection open.
//
// The peer must be root or the shim's own user (SO_PEERCRED).
//
// # Compatibility
//
// A shim lives as long as its container, and the supervisor is replaced
// meanwhile: it works with the shims of every release of the same packet
// version. Hence files keep their names, fields are only added, are absent when
// empty, and absent mean what was so before; a request that an older shim does
// not know is answered with NotImplemented, and the supervisor does without.
// What cannot be so takes a new version; shim.json says which one a shim
// speaks, and the supervisor speaks that one and its own.
package shim
