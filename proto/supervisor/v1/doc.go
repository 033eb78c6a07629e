// Package supervisor is the contract between the supervisor and its clients:
// the service of supervisor.proto with its generated code, the mapping of
// errors to gRPC statuses and back, and a small client.
//
//	client, err := supervisor.Dial(ctx, "unix:///run/engined/supervisor.sock")
//	for event, err := range client.EventsAfter(ctx, lastSeen) { ... }
//
// # Errors
//
// A server's error becomes a status whose google.rpc.ErrorInfo detail (domain
// "engined") has the errdefs code as reason and kind and subject as metadata.
// [FromStatus] turns it back, so errdefs.KindOf and errdefs.CodeOf answer the
// same on both sides. A status of another origin is classified by its gRPC
// code alone. A [Client] does this for every call.
//
// # Events
//
// Sequence numbers grow and never repeat, not even when the state directory is
// wiped, but are not dense. A client stores the number of the last event it has
// dealt with and resumes after it. What the journal no longer holds is replaced
// by one "snapshot" event. A snapshot may also come in the middle of a stream,
// when a reader has fallen behind the journal.
//
// Absent on purpose: server code (package supervisor of this module), retries of
// calls that change something.
package supervisor

//go:generate protoc -I ../../.. --go_out=../../.. --go_opt=module=github.com/engined/engined --go-grpc_out=../../.. --go-grpc_opt=module=github.com/engined/engined proto/supervisor/v1/supervisor.proto
