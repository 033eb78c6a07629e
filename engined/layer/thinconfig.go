package layer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/engined/layer/thinpool"
	"github.com/engined/engined/proto/errdefs"
)

// thinOptions are Docker's, as far as they say something here.
var thinOptions = []string{"dm.basesize", "dm.blkdiscard", "dm.blocksize", "dm.datadev", "dm.directlvm_device", "dm.fs", "dm.loopdatasize",
	"dm.loopmetadatasize", "dm.metadatadev", "dm.min_free_space", "dm.mkfsarg", "dm.mountopt", "dm.thinpooldev",
	"dm.use_deferred_deletion", "dm.use_deferred_removal"}

// thinConfig is what the options say.
type thinConfig struct {
	baseSize       int64 // of the file system of each image and container
	baseSizeGiven  bool
	loopData       int64 // sizes of the sparse files
	loopMetadata   int64
	blockSize      int64
	data, metadata string // block devices instead of the files
	pooled         string // name of a pool that is there
	filesystem     string // ext4 or xfs; "" for what the pool was begun with, else ext4
	mkfsArguments  []string
	minFree        int64 // percent
	discard        bool  // punch freed blocks out of the data file

	mountAttributes int         // MOUNT_ATTR_*
	fileOptions     [][2]string // the file system's own
}

func parseThin(options map[string]string) (thinConfig, error) {
	c := thinConfig{baseSize: 10 << 30, loopData: 100 << 30, loopMetadata: 2 << 30, blockSize: 64 << 10, minFree: 10}
	for key, text := range options {
		if err := c.set(key, text); err != nil {
			return c, err
		}
	}
	return c, c.check(options)
}

func (c *thinConfig) set(key, text string) (err error) {
	switch key {
	case "dm.basesize":
		c.baseSizeGiven = true
		c.baseSize, err = parseSize(key, text)
	case "dm.loopdatasize":
		c.loopData, err = parseSize(key, text)
	case "dm.loopmetadatasize":
		c.loopMetadata, err = parseSize(key, text)
	case "dm.blocksize":
		c.blockSize, err = parseSize(key, text)
	case "dm.datadev":
		c.data = text
	case "dm.metadatadev":
		c.metadata = text
	case "dm.thinpooldev":
		c.pooled = strings.TrimPrefix(text, "/dev/mapper/")
	case "dm.fs":
		if c.filesystem = text; text != "ext4" && text != "xfs" {
			err = errdefs.InvalidArgument.Errorf("storage-opt dm.fs: expected ext4 or xfs, got %q", text)
		}
	case "dm.mkfsarg":
		c.mkfsArguments = append(c.mkfsArguments, strings.Fields(text)...)
	case "dm.mountopt":
		c.setMountOptions(text)
	case "dm.blkdiscard":
		c.discard, err = parseTruth(key, text)
	case "dm.min_free_space":
		c.minFree, err = strconv.ParseInt(strings.TrimSuffix(text, "%"), 10, 64)
		if err != nil || !strings.HasSuffix(text, "%") || c.minFree < 0 || c.minFree >= 100 {
			err = errdefs.InvalidArgument.Errorf("storage-opt dm.min_free_space: expected a percentage below 100%%, got %q", text)
		}
	case "dm.use_deferred_removal", "dm.use_deferred_deletion":
		var wanted bool
		if wanted, err = parseTruth(key, text); err == nil && !wanted {
			err = errdefs.NotImplemented.Errorf("storage-opt %s=false: devices in use always go with their last user here", key)
		}
	case "dm.directlvm_device":
		err = errdefs.NotImplemented.Errorf("storage-opt dm.directlvm_device: making a volume group is not implemented; make a thin pool with lvm and give it as dm.thinpooldev")
	}
	return err
}

// mountFlags are options that belong to a mount and not to a file system.
var mountFlags = map[string]int{"noatime": unix.MOUNT_ATTR_NOATIME, "nodiratime": unix.MOUNT_ATTR_NODIRATIME, "relatime": unix.MOUNT_ATTR_RELATIME,
	"strictatime": unix.MOUNT_ATTR_STRICTATIME, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV, "noexec": unix.MOUNT_ATTR_NOEXEC}

func (c *thinConfig) setMountOptions(text string) {
	for option := range strings.SplitSeq(text, ",") {
		if flag, known := mountFlags[option]; known {
			c.mountAttributes |= flag
			continue
		}
		name, value, _ := strings.Cut(option, "=")
		c.fileOptions = append(c.fileOptions, [2]string{name, value})
	}
}

// check looks at what does not go together.
func (c *thinConfig) check(options map[string]string) error {
	if (c.data == "") != (c.metadata == "") {
		return errdefs.InvalidArgument.Errorf("storage-opt dm.datadev and dm.metadatadev: expected both or none")
	}
	if c.pooled != "" && c.data != "" {
		return errdefs.InvalidArgument.Errorf("storage-opt dm.thinpooldev: a pool that is there has its devices; expected no dm.datadev and dm.metadatadev")
	}
	const least, most = 64 << 10, 1 << 30 // thin-provisioning.txt
	if c.blockSize < least || c.blockSize > most || c.blockSize%least != 0 {
		return errdefs.InvalidArgument.Errorf("storage-opt dm.blocksize: expected a multiple of 64K up to 1G, got %s", options["dm.blocksize"])
	}
	if _, given := options["dm.blkdiscard"]; !given {
		c.discard = c.pooled == "" && c.data == "" // as Docker: only a sparse file gets smaller by it
	}
	c.baseSize -= c.baseSize % sectorSize
	return nil
}

// poolConfig makes the loop files where there are none.
func (c *thinConfig) poolConfig(dir string) (thinpool.Config, error) {
	if c.pooled != "" {
		return thinpool.Config{Name: c.pooled, Existing: true}, nil
	}
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		return thinpool.Config{}, fmt.Errorf("looking at %s: %w", dir, err)
	}
	config := thinpool.Config{Data: c.data, Metadata: c.metadata, BlockSize: c.blockSize,
		// Of this directory alone, as Docker's: there may be several data roots.
		Name: fmt.Sprintf("engined-%d:%d-%d-pool", unix.Major(stat.Dev), unix.Minor(stat.Dev), stat.Ino)}
	if c.data != "" {
		return config, nil
	}
	config.Data, config.Metadata = filepath.Join(dir, "data"), filepath.Join(dir, "metadata")
	return config, errors.Join(makeSparse(config.Data, c.loopData), makeSparse(config.Metadata, c.loopMetadata))
}

// makeSparse makes a file of zeros; one that is there stays as it is.
func makeSparse(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if info, err := file.Stat(); err != nil || info.Size() > 0 {
		return errors.Join(err, file.Close())
	}
	return errors.Join(file.Truncate(size), file.Close())
}
