// Package system answers what the engine is: GET /version and GET /info.
//
// Facts of the host (host.go) are asked of the kernel each time and are never
// stored, except what cannot change while it runs. What belongs to another
// noun (container counts, images, storage) is asked of it through [Sources].
//
// Absent on purpose: disk usage, registry settings, and every field of Info
// that describes something engined does not have; they stay empty.
package system
