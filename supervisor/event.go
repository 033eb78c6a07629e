package supervisor

// Types of events, as supervisor.proto lists them.
const (
	eventCreated        = "created"
	eventStartContainer = "start-container"
	eventStartProcess   = "start-process"
	eventExit           = "exit"
	eventPause          = "pause"
	eventResume         = "resume"
	eventUpdate         = "update"
	eventOOM            = "oom"
	eventDelete         = "delete"
	eventSnapshot       = "snapshot" // made for one reader, never in the journal

	// eventForget is the journal's own: an exited process's name is free again.
	// Readers do not see it.
	eventForget = "forget"
)
