/*
 * The `bounceio` command: what its subcommands share.
 *
 * A subcommand is one file and one row of the table in main.c. Its function gets its own arguments (argv[0] is "bounceio NAME", so
 * that getopt_long's messages read well), answers --help itself, and returns an exit status. Results go to stdout, everything else to
 * stderr. The shim's floors 1 to 5 are there for it, started by cli_start; nothing of the command itself is intercepted.
 */
#ifndef BOUNCEIO_CLI_CLI_H
#define BOUNCEIO_CLI_CLI_H

#include <stdbool.h>

/* Exit statuses. A command that was interrupted ends with 128 + the signal's number. */
enum {
    CLI_CLEAN = 0,  /* done, nothing wrong */
    CLI_FOUND = 1,  /* done, and something was found: mismatches */
    CLI_FAILED = 2, /* could not, or wrong usage */
};

/* Print the text of --help. @return CLI_CLEAN */
int cli_help(const char *text);

/* After getopt_long, or our own message, has said what is wrong. @return CLI_FAILED */
int cli_usage(char **argv);

/* "bounceio: ..." on stderr. Any thread. @return CLI_FAILED */
int cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void cli_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Start the shim's floors in this process: configuration (BOUNCEIO_STORE and so on), arena, pool.
 * @return CLI_CLEAN; CLI_FAILED after a message when they cannot be used.
 */
int cli_start(void);

/*
 * The same, and open the store. @return CLI_CLEAN; CLI_FAILED after a message; -1, silently, when there is none yet and !create: then
 * no file has a checksum.
 */
int cli_open_store(bool create);

int adopt_main(int argc, char **argv);
int forget_main(int argc, char **argv);
int gc_main(int argc, char **argv);
int run_main(int argc, char **argv);
int scrub_main(int argc, char **argv);
int stat_main(int argc, char **argv);

#endif
