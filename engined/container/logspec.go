package container

import (
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/docker/go-units"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// logSpec reads HostConfig.LogConfig. Nil: nothing is logged.
func logSpec(r *Record, path string) (log *shim.Log, err error) {
	config := r.HostConfig.LogConfig
	if config.Type == "none" {
		return nil, nil //nolint:nilnil // no log
	}
	log = &shim.Log{Driver: config.Type, Path: path, MaxFile: 1}
	if log.Driver == "local" {
		log.Path = filepath.Join(filepath.Dir(path), "local.log")
		log.MaxSize, log.MaxFile, log.Compress = 20<<20, 5, true
	}
	for name, value := range config.Config {
		if err := setLogOption(log, name, value); err != nil {
			return nil, err
		}
	}
	if log.MaxFile > 1 && log.MaxSize <= 0 {
		return nil, fmt.Errorf("max-file cannot be set without max-size")
	}
	log.Attrs, err = logAttributes(r)
	return log, err
}

func setLogOption(log *shim.Log, name, value string) (err error) {
	switch name {
	case "max-size":
		if value == "-1" {
			log.MaxSize = 0
			return nil
		}
		if log.MaxSize, err = units.RAMInBytes(value); err != nil || log.MaxSize <= 0 {
			return fmt.Errorf("max-size: invalid size %q", value)
		}
	case "max-file":
		if log.MaxFile, err = strconv.Atoi(value); err != nil || log.MaxFile < 1 {
			return fmt.Errorf("max-file: %q: expected a number above zero", value)
		}
	case "compress":
		if log.Compress, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("compress: %q: expected true or false", value)
		}
	case "labels", "labels-regex", "env", "env-regex", "tag": // logAttributes
	case "mode", "max-buffer-size":
		return errdefs.NotImplemented.Errorf("HostConfig.LogConfig.Config: option %s is not implemented", name)
	default:
		return fmt.Errorf("unknown log opt '%s' for %s log driver", name, log.Driver)
	}
	return nil
}
