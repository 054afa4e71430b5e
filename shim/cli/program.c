/* See program.h. */
#include "cli/program.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cli/cli.h"

enum { INTERPRETERS = 4, HEADERS_MAXIMUM = 64 };

static bool is_program(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

/* @return false when execvp will not find it either. */
static bool find_program(const char *command, char path[PATH_MAX])
{
    const char *at = getenv("PATH");
    if (strchr(command, '/'))
        return (size_t)snprintf(path, PATH_MAX, "%s", command) < PATH_MAX && is_program(path);
    for (at = at ? at : "/bin:/usr/bin"; at; at = strchr(at, ':') ? strchr(at, ':') + 1 : NULL) {
        int length = (int)strcspn(at, ":");
        if (snprintf(path, PATH_MAX, "%.*s%s%s", length, at, length > 0 ? "/" : "", command) < PATH_MAX &&
            is_program(path))
            return true;
    }
    return false;
}

/* Does running it change who we are? Then the loader ignores LD_PRELOAD. */
static bool gains_privileges(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return false;
    if ((status.st_mode & S_ISUID) && status.st_uid != getuid())
        return true;
    if ((status.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && status.st_gid != getgid())
        return true;
    return getuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0;
}

/* The program that a script names in its first line. */
static bool read_interpreter(int fd, char path[PATH_MAX])
{
    char line[256];
    ssize_t length = pread(fd, line, sizeof line - 1, 0);
    if (length < 3 || line[0] != '#' || line[1] != '!')
        return false;
    line[length] = '\0';
    char *name = line + 2 + strspn(line + 2, " \t");
    name[strcspn(name, " \t\n")] = '\0';
    return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX;
}

/* @return why the loader cannot put the shim into this ELF file, or NULL. */
static const char *why_not(int fd)
{
    Elf64_Ehdr header;
    if (pread(fd, &header, sizeof header, 0) != (ssize_t)sizeof header || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
        return NULL; /* no program of ours to judge */
    if (header.e_ident[EI_CLASS] != ELFCLASS64)
        return "is a 32-bit program";
    Elf64_Phdr part;
    for (unsigned i = 0; i < header.e_phnum && i < HEADERS_MAXIMUM; i++) {
        off_t at = (off_t)(header.e_phoff + (Elf64_Off)i * header.e_phentsize);
        if (pread(fd, &part, sizeof part, at) != (ssize_t)sizeof part || part.p_type == PT_INTERP)
            return NULL;
    }
    return "is statically linked";
}

void program_warn(const char *command)
{
    char path[PATH_MAX];
    if (!find_program(command, path))
        return;
    for (int i = 0; i < INTERPRETERS; i++) {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
            return;
        if (i == 0 && gains_privileges(path))
            cli_warning("\"%s\" is set-user-ID or set-group-ID: the loader leaves the shim out; run it as the user it "
                        "changes to",
                        path);
        const char *reason = why_not(fd);
        if (reason)
            cli_warning(
                "\"%s\" %s: the shim cannot be loaded into it, and its direct I/O is neither bounced nor checked", path,
                reason);
        bool script = !reason && read_interpreter(fd, path);
        close(fd);
        if (!script)
            return;
    }
}
