/* Notes every signal that can be caught, but SIGURG and SIGPROF, in a pipe. */
#ifndef ENGINED_SIGNALS_H
#define ENGINED_SIGNALS_H

int signals_note(int fd); /* 0 or errno */
int signals_release(void); /* 0: a void one makes cgo's own code warn */

#endif
