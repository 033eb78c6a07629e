// Package network gives containers their network: a sandbox (the network
// namespace), endpoints in it (one veth pair for each network), addresses, the
// rules that let them out, and the files that name hosts.
//
// There are three networks: host, none, and bridge. Their ids are made once
// and kept in the database, like Docker's.
//
// # What is stored
//
//	networks   (id, name, driver, created)
//	endpoints  (id, container, network, name, address, mac, link, sandbox, created, released)
//
// An endpoint's row is written before its link is made and deleted after the
// link is gone, so whatever dies half-way, the row says what to look for. An
// address belongs to its row: it is not handed out again while a namespace
// that may still answer for it lives.
//
// # Release is not a wait
//
// Deleting a veth pair makes the kernel wait for RCU, 15 to 60 ms. Release
// only marks the rows; the sweeper, one goroutine owned by the Service, takes
// links and namespaces away afterwards, or whoever needs the address of one
// before that. Reconcile marks at start-up what belongs to no running container
// and the sweeper does the rest.
//
// # The bridge
//
// A bridge that is there already is used and never deleted. One made here has an
// alias that names this database's network, so that it is known after a kill.
//
// # Namespaces
//
// A sandbox is a network namespace bind-mounted at EXEC-ROOT/netns/NAME by a
// thread that is thrown away afterwards (a Go thread that could not be moved
// back must never run another goroutine). Links are configured through a
// netlink socket opened in the namespace; no goroutine stays inside.
//
// Absent on purpose: published ports, user-defined networks and embedded DNS;
// asking for them is answered by NotImplemented.
//
// Start reading at [Service.Allocate].
package network
