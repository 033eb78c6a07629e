module github.com/engined/engined

go 1.26.0

require (
	github.com/containerd/errdefs v1.0.0 // the kinds of errors
	github.com/coreos/go-systemd/v22 v22.7.0 // sd_notify, socket activation
	github.com/creack/pty v1.1.24 // terminals in tests
	github.com/cyphar/filepath-securejoin v0.7.0 // paths inside a root file system, by descriptor
	github.com/distribution/reference v0.6.0 // image references
	github.com/docker/go-units v0.5.0 // sizes and times as docker prints them
	github.com/google/go-cmp v0.7.0 // comparisons in tests
	github.com/google/go-containerregistry v0.22.1 // registries: authentication, names; images in tests
	github.com/google/nftables v0.3.0 // firewall rules, by netlink
	github.com/klauspost/compress v1.20.3 // gzip and zstd of layers
	github.com/mattn/go-sqlite3 v1.14.52 // the database
	github.com/moby/docker-image-spec v1.3.1 // an image's configuration
	github.com/moby/go-archive v0.3.3 // an image's files copied into a volume
	github.com/moby/moby/api v1.56.1 // the types of the Engine API
	github.com/moby/moby/client v0.6.2 // the built-in command line, tests
	github.com/moby/profiles/seccomp v0.2.3 // the default system call filter
	github.com/moby/sys/mountinfo v0.7.3 // what is mounted
	github.com/moby/sys/user v0.5.0 // passwd and group files
	github.com/opencontainers/go-digest v1.0.0 // digests
	github.com/opencontainers/image-spec v1.1.1 // images and manifests
	github.com/opencontainers/runtime-spec v1.3.0 // config.json, state
	github.com/vbatts/tar-split v0.12.3 // a layer goes out as it came in
	github.com/vishvananda/netlink v1.3.1 // links, addresses, routes
	github.com/vishvananda/netns v0.0.5 // network namespaces
	golang.org/x/sys v0.49.0 // system calls
	golang.org/x/term v0.47.0 // raw mode of the client's terminal
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261019180522-ce908d29299b // error details of the supervisor's API
	google.golang.org/grpc v1.85.0 // the supervisor's API
	google.golang.org/protobuf v1.36.12 // the supervisor's API
)

require (
	cyphar.com/go-pathrs v0.2.5 // indirect
	github.com/Microsoft/go-winio v0.6.2 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/containerd/errdefs/pkg v0.3.0 // indirect
	github.com/containerd/log v0.1.0 // indirect
	github.com/docker/cli v29.7.2+incompatible // indirect
	github.com/docker/docker-credential-helpers v0.9.3 // indirect
	github.com/docker/go-connections v0.8.2 // indirect
	github.com/felixge/httpsnoop v1.0.4 // indirect
	github.com/go-logr/logr v1.4.4 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/mdlayher/netlink v1.7.3-0.20250113171957-fbb4dce95f42 // indirect
	github.com/mdlayher/socket v0.5.1 // indirect
	github.com/moby/patternmatcher v0.6.1 // indirect
	github.com/moby/sys/sequential v0.7.0 // indirect
	github.com/moby/sys/userns v0.1.0 // indirect
	github.com/sirupsen/logrus v1.10.2 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp v0.61.0 // indirect
	go.opentelemetry.io/otel v1.45.0 // indirect
	go.opentelemetry.io/otel/metric v1.45.0 // indirect
	go.opentelemetry.io/otel/trace v1.45.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)
