/*
 * What can be seen of a program before it is run: will the shim reach it?
 */
#ifndef BOUNCEIO_CLI_PROGRAM_H
#define BOUNCEIO_CLI_PROGRAM_H

/* Warn when the loader will not put the shim into `command` (found as execvp(3) does): set-user-ID, statically linked, of another kind. */
void program_warn(const char *command);

#endif
