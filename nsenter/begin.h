/* What happens in the parent before Go's runtime starts; see begin.c. */
#ifndef BEGIN_H
#define BEGIN_H

/* fault_cost returns the nanoseconds that a page fault takes, and with it a measure of
 * whatever else a hypervisor may have to do with, as interrupts of another processor. */
long fault_cost(void);

#define FELT 800  /* where a hypervisor nests page tables */
#define DEAR 4000 /* where it shadows them */

#define STDIO 3 /* descriptors */

/* limit_files has no file opened until unlimit_files, but for stdio. */
void limit_files(void);
void unlimit_files(void);

/* fill_in_program maps the program's pages that are read only, all at once. */
void fill_in_program(void);

/* bind_processor has this thread, and those that it makes, run on the processor
 * that it is on. */
void bind_processor(void);

/* unbind_thread gives the calling thread the processors that this program was
 * started with, and bind_thread takes them away again. Neither does anything if
 * nothing is bound. Both return whether they did. */
int unbind_thread(void);
int bind_thread(void);

/* unbind_all does it to all threads, for good. */
int unbind_all(void);

#endif
