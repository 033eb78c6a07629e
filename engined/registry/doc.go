// Package registry is the wire: it speaks the registry protocol (OCI
// distribution 1.1, Docker's v2) to other people's registries. It knows
// manifests, blobs and credentials; names and layers that are here are package
// image's and layer's.
//
//	Client ── hosts: insecure, mirrors, certificates, connections
//	└── Repository ── one repository; mirrors first where there are some
//	    ├── Resolve   manifest or index -> the image for a platform
//	    ├── Fetch     a layer's blob into <data root>/tmp, see download.go
//	    └── Push...   blobs and manifests, see upload.go
//
// What a registry sends is untrusted. Manifests, lists and errors are read up
// to a limit, blobs up to the size their manifest names; all but tags are
// verified by digest before anybody relies on them; redirects are few and never
// lead from HTTPS to HTTP; credentials go to the registry and to the token
// server it names, see go-containerregistry's transport, and nowhere else.
//
// A blob is fetched once, however many pulls want it, into a file that its
// readers follow while it grows; so layers arrive side by side and unpack in
// order, and the memory of a pull does not depend on its size. Decided
// 2026-11-21 against streaming from the connection into the layer: that would
// stall downloads behind the unpacking of the layers below and begin again
// after every cut connection. Price: one write and one read of the page cache.
//
//	<data root>/tmp/blob-sha256-<hex>   a blob, whole or as far as it came. The
//	                                    next pull goes on there; after three
//	                                    days Open removes it
//	<data root>/tmp/push-*              a layer compressed for a push
//
// A file that an earlier process left is not shown to readers before all of it
// is verified: after a power cut its blocks may hold anything.
//
// Absent on purpose: Docker's schema 1 manifests, signatures, foreign layers
// (their media types are refused), deleting.
//
// Start reading at client.go, then repository.go and download.go.
package registry
