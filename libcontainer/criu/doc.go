// Package criu talks with CRIU, which saves processes to files and brings them
// back, by its RPC: `criu swrk FD`, one request and its answers as protobuf
// messages in packets of a socket.
//
//	us                          criu
//	request (DUMP, RESTORE) ──>
//	                        <── NOTIFY "network-lock", "post-restore", ...
//	NOTIFY, success         ──>
//	                        <── DUMP or RESTORE, success or not
//
// CRIU's command line can do almost the same. It cannot hand over the master
// of a restored terminal ("orphan-pts-master" comes with a descriptor), nor say
// when the namespaces are there and hooks may run.
//
// The messages are those of criu's images/rpc.proto, coded by hand (wire.go,
// rpc.go): a protobuf library would cost every start of the runtime.
//
// # Invariants
//
//   - What is read is bounded and checked; unknown fields are skipped.
//   - A Process that was started is waited for by Close.
package criu
