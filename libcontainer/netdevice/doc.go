// Package netdevice moves network devices of the host into a container's
// network namespace (linux.netDevices of the runtime spec): under the name the
// spec gives, with the device's permanent global addresses, and up.
//
// It speaks rtnetlink(7) itself: three messages do not pay for a library that
// every start of the runtime would load.
//
// A failed start takes the devices back ([Moved.Back]). A container that ends
// leaves them to its namespace, as the spec wants: the kernel then returns
// physical devices and destroys virtual ones.
package netdevice
