package layer

// schema is this noun's part of the database; see the tree in doc.go. Every
// table is keyed by driver, because each driver has a directory of its own and
// a data root may have been used with several.
var schema = []string{`
CREATE TABLE layers (
	driver  TEXT NOT NULL,
	chain   TEXT NOT NULL,             -- sha256:..., names the layer
	diff    TEXT NOT NULL,             -- sha256 of the uncompressed tar
	parent  TEXT,                      -- chain id below; NULL for a bottom layer
	dir     TEXT NOT NULL,             -- directory name under the driver's root
	size    INTEGER NOT NULL,          -- bytes of this layer's own files
	total   INTEGER NOT NULL,          -- size with all parents
	created INTEGER NOT NULL,          -- Unix nanoseconds
	damaged TEXT NOT NULL DEFAULT '',  -- '' or what is wrong with it
	PRIMARY KEY (driver, chain),
	UNIQUE (driver, dir),
	FOREIGN KEY (driver, parent) REFERENCES layers (driver, chain)
) STRICT;
CREATE INDEX layers_parent ON layers (driver, parent);
CREATE TABLE layer_holds (
	driver TEXT NOT NULL,
	owner  TEXT NOT NULL,
	chain  TEXT NOT NULL,
	PRIMARY KEY (driver, owner, chain),
	FOREIGN KEY (driver, chain) REFERENCES layers (driver, chain)
) STRICT;
CREATE INDEX layer_holds_chain ON layer_holds (driver, chain);
CREATE TABLE writable_layers (
	driver  TEXT NOT NULL,
	id      TEXT NOT NULL,             -- the container's id, and its directory
	parent  TEXT,                      -- chain id; NULL for an empty root
	created INTEGER NOT NULL,
	PRIMARY KEY (driver, id),
	FOREIGN KEY (driver, parent) REFERENCES layers (driver, chain)
) STRICT;
CREATE INDEX writable_layers_parent ON writable_layers (driver, parent);
`}
