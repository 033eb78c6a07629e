package rootfs

import (
	"strings"

	"golang.org/x/sys/unix"
)

// options is what a mount's option strings ask for.
type options struct {
	flags, clear uintptr  // MS_*
	recursive    attrs    // rro and the like, mount_setattr's attributes for the whole tree
	propagation  []uint64 // MS_SHARED and the like, MS_REC added, in the order given
	data         []string // what the file system itself is to read
	copyUp       bool     // tmpcopyup, runc's extension
	idmap        bool     // idmap, ridmap
}

type attrs struct{ set, clear uint64 } // MOUNT_ATTR_*

type flagOption struct {
	clear bool
	flag  uintptr
}

// flagOptions are mount(8)'s generic options, as runc accepts them.
var flagOptions = map[string]flagOption{
	"acl":           {false, unix.MS_POSIXACL},
	"async":         {true, unix.MS_SYNCHRONOUS},
	"atime":         {true, unix.MS_NOATIME},
	"bind":          {false, unix.MS_BIND},
	"defaults":      {false, 0},
	"dev":           {true, unix.MS_NODEV},
	"diratime":      {true, unix.MS_NODIRATIME},
	"dirsync":       {false, unix.MS_DIRSYNC},
	"exec":          {true, unix.MS_NOEXEC},
	"iversion":      {false, unix.MS_I_VERSION},
	"lazytime":      {false, unix.MS_LAZYTIME},
	"loud":          {true, unix.MS_SILENT},
	"mand":          {false, unix.MS_MANDLOCK},
	"noacl":         {true, unix.MS_POSIXACL},
	"noatime":       {false, unix.MS_NOATIME},
	"nodev":         {false, unix.MS_NODEV},
	"nodiratime":    {false, unix.MS_NODIRATIME},
	"noexec":        {false, unix.MS_NOEXEC},
	"noiversion":    {true, unix.MS_I_VERSION},
	"nolazytime":    {true, unix.MS_LAZYTIME},
	"nomand":        {true, unix.MS_MANDLOCK},
	"norelatime":    {true, unix.MS_RELATIME},
	"nostrictatime": {true, unix.MS_STRICTATIME},
	"nosuid":        {false, unix.MS_NOSUID},
	"nosymfollow":   {false, unix.MS_NOSYMFOLLOW},
	"rbind":         {false, unix.MS_BIND | unix.MS_REC},
	"relatime":      {false, unix.MS_RELATIME},
	"remount":       {false, unix.MS_REMOUNT},
	"ro":            {false, unix.MS_RDONLY},
	"rw":            {true, unix.MS_RDONLY},
	"silent":        {false, unix.MS_SILENT},
	"strictatime":   {false, unix.MS_STRICTATIME},
	"suid":          {true, unix.MS_NOSUID},
	"symfollow":     {true, unix.MS_NOSYMFOLLOW},
	"sync":          {false, unix.MS_SYNCHRONOUS},
}

var propagationOptions = map[string]uint64{
	"private":     unix.MS_PRIVATE,
	"rprivate":    unix.MS_PRIVATE | unix.MS_REC,
	"rshared":     unix.MS_SHARED | unix.MS_REC,
	"rslave":      unix.MS_SLAVE | unix.MS_REC,
	"runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
	"shared":      unix.MS_SHARED,
	"slave":       unix.MS_SLAVE,
	"unbindable":  unix.MS_UNBINDABLE,
}

// recursiveOptions are for the mount and all mounts below it.
var recursiveOptions = map[string]attrs{
	"rro":            {set: unix.MOUNT_ATTR_RDONLY},
	"rrw":            {clear: unix.MOUNT_ATTR_RDONLY},
	"rnosuid":        {set: unix.MOUNT_ATTR_NOSUID},
	"rsuid":          {clear: unix.MOUNT_ATTR_NOSUID},
	"rnodev":         {set: unix.MOUNT_ATTR_NODEV},
	"rdev":           {clear: unix.MOUNT_ATTR_NODEV},
	"rnoexec":        {set: unix.MOUNT_ATTR_NOEXEC},
	"rexec":          {clear: unix.MOUNT_ATTR_NOEXEC},
	"rnodiratime":    {set: unix.MOUNT_ATTR_NODIRATIME},
	"rdiratime":      {clear: unix.MOUNT_ATTR_NODIRATIME},
	"rrelatime":      {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"rnorelatime":    {clear: unix.MOUNT_ATTR__ATIME},
	"rnoatime":       {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	"ratime":         {clear: unix.MOUNT_ATTR__ATIME},
	"rstrictatime":   {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"rnostrictatime": {clear: unix.MOUNT_ATTR__ATIME},
	"rnosymfollow":   {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"rsymfollow":     {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
}

// parseOptions sorts the option strings; of opposites the last one wins.
func parseOptions(list []string) options {
	var o options
	for _, option := range list {
		if flag, ok := flagOptions[option]; ok {
			o.setFlag(flag)
			continue
		}
		if propagation, ok := propagationOptions[option]; ok {
			o.propagation = append(o.propagation, propagation)
			continue
		}
		if attr, ok := recursiveOptions[option]; ok {
			o.recursive.set = o.recursive.set&^attr.clear | attr.set
			o.recursive.clear = o.recursive.clear&^attr.set | attr.clear
			continue
		}
		switch option {
		case "tmpcopyup":
			o.copyUp = true
		case "idmap", "ridmap":
			o.idmap = true
		default:
			o.data = append(o.data, option)
		}
	}
	return o
}

func (o *options) setFlag(f flagOption) {
	if f.clear {
		o.flags &^= f.flag
		o.clear |= f.flag
		return
	}
	if f.flag&accessTimes != 0 {
		o.flags &^= accessTimes
	}
	o.flags |= f.flag
	o.clear &^= f.flag
}

const accessTimes = unix.MS_NOATIME | unix.MS_RELATIME | unix.MS_STRICTATIME // one at a time

// hasMode reports whether a tmpfs was given its mode.
func (o *options) hasMode() bool {
	for _, d := range o.data {
		if strings.HasPrefix(d, "mode=") {
			return true
		}
	}
	return false
}

// attrBits are the mount flags that mount_setattr knows, save those of access
// times, which exclude each other.
var attrBits = []struct {
	flag uintptr
	attr uint64
}{
	{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY},
	{unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
	{unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
	{unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
	{unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME},
	{unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW},
}

// attributes translates the flags for mount_setattr. Only what was asked for
// changes: a bind keeps, say, its source's nosuid.
func (o *options) attributes() attrs {
	var a attrs
	for _, bit := range attrBits {
		if o.flags&bit.flag != 0 {
			a.set |= bit.attr
		}
		if o.clear&bit.flag != 0 {
			a.clear |= bit.attr
		}
	}
	switch {
	case o.flags&unix.MS_NOATIME != 0:
		a.set |= unix.MOUNT_ATTR_NOATIME
		a.clear |= unix.MOUNT_ATTR__ATIME
	case o.flags&unix.MS_STRICTATIME != 0:
		a.set |= unix.MOUNT_ATTR_STRICTATIME
		a.clear |= unix.MOUNT_ATTR__ATIME
	case o.flags&unix.MS_RELATIME != 0 || o.clear&(unix.MS_NOATIME|unix.MS_STRICTATIME) != 0:
		a.clear |= unix.MOUNT_ATTR__ATIME
	}
	return a
}
