/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/toa_send/cgroup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PREFIX "tidegate-edge-"

enum {
	NAMES_MAX = 8,	   /* tried, should other PID namespaces have processes of our number here */
	REMOVE_TRIES = 50, /* a thread that has ended may be in the cgroup for a moment longer */
	REMOVE_WAIT_MS = 2,
};

/* --- where the process is --- */

/* The kernel writes blanks and backslashes in paths as \ooo. */
static void unescape(char *path)
{
	char *to = path;

	for (const char *c = path; *c; c++) {
		unsigned int byte;

		if (c[0] == '\\' && sscanf(c + 1, "%3o", &byte) == 1) {
			*to++ = (char)byte;
			c += 3;
		} else {
			*to++ = *c;
		}
	}
	*to = 0;
}

/* "0::/system.slice/x" of /proc/self/cgroup: the path within the hierarchy as we see it. */
static bool read_own_path(char path[static PATH_MAX])
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX + 8];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		found = strncmp(line, "0::", 3) == 0;
		if (found)
			snprintf(path, PATH_MAX, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
	}
	if (f)
		fclose(f);
	return found;
}

/* One line of /proc/self/mountinfo: the part of the hierarchy that is mounted, and where; if it is of cgroup v2. */
static bool cgroup2_mount(char *line, char **ret_root, char **ret_point)
{
	char *type = strstr(line, " - "), *save, *word = strtok_r(line, " ", &save);

	if (!type || strncmp(type + 3, "cgroup2 ", 8) != 0)
		return false;
	for (int i = 0; word && i < 3; i++)
		word = strtok_r(NULL, " ", &save);
	*ret_root = word;
	*ret_point = strtok_r(NULL, " ", &save);
	if (!*ret_root || !*ret_point)
		return false;
	unescape(*ret_root);
	unescape(*ret_point);
	return true;
}

/* The directory of the process's cgroup. Return: 0; -ENOENT without one that can be seen. */
static int find_own(char directory[static PATH_MAX], struct text *ret_why)
{
	char own[PATH_MAX], line[3 * PATH_MAX], *root, *point;
	bool mounted = false, found = false;
	FILE *f;

	if (!read_own_path(own)) {
		text_str(ret_why, "the kernel has no cgroup v2");
		return -ENOENT;
	}
	f = fopen("/proc/self/mountinfo", "re");
	while (f && !found && fgets(line, sizeof(line), f)) {
		size_t length;

		if (!cgroup2_mount(line, &root, &point))
			continue;
		mounted = true;
		length = strcmp(root, "/") == 0 ? 0 : strlen(root);
		if (strncmp(own, root, length) != 0 || (own[length] != '/' && own[length]) || strstr(own, "/.."))
			continue; /* another part of the hierarchy is mounted here */
		found = snprintf(directory, PATH_MAX, "%s%s", point, strcmp(own + length, "/") ? own + length : "") <
			PATH_MAX;
	}
	if (f)
		fclose(f);
	if (found)
		return 0;
	text_str(ret_why,
		mounted ? "the process's cgroup is not within a cgroup v2 mount that it sees"
			: "no cgroup v2 is mounted where the process sees it");
	return -ENOENT;
}

/* --- making and removing --- */

static void remove_stale(int parent_fd)
{
	int fd = openat(parent_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) == 0)
			unlinkat(parent_fd, entry->d_name, AT_REMOVEDIR); /* refused while somebody is in it */
	if (d)
		closedir(d);
	else if (fd >= 0)
		close(fd);
}

static int write_self(int fd)
{
	return write(fd, "0", 1) == 1 ? 0 : -errno;
}

static int move_in(const struct own_cgroup *cgroup)
{
	int fd = openat(cgroup->fd, "cgroup.procs", O_WRONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = write_self(fd);
	close(fd);
	return r;
}

/* One with a name that is free. Another process's remove_stale() may take it away before we are in it. */
static int make_and_enter(struct own_cgroup *cgroup)
{
	int r = -EEXIST;

	for (int i = 0; i < NAMES_MAX && (r == -EEXIST || r == -ENOENT || r == -ENODEV); i++) {
		snprintf(cgroup->name, sizeof(cgroup->name), i ? PREFIX "%d.%d" : PREFIX "%d", (int)getpid(), i);
		if (mkdirat(cgroup->parent_fd, cgroup->name, 0755) < 0) {
			r = -errno;
			continue;
		}
		cgroup->fd = openat(cgroup->parent_fd, cgroup->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = cgroup->fd < 0 ? -errno : move_in(cgroup);
		if (r == 0)
			return 0;
		if (cgroup->fd >= 0)
			close(cgroup->fd);
		cgroup->fd = -1;
		unlinkat(cgroup->parent_fd, cgroup->name, AT_REMOVEDIR);
	}
	return fault(r);
}

static void close_all(struct own_cgroup *cgroup)
{
	const int fds[] = { cgroup->parent_fd, cgroup->return_fd, cgroup->fd };

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	*cgroup = (struct own_cgroup){ 0 };
}

int own_cgroup_enter(struct own_cgroup *ret_cgroup, struct text *ret_why)
{
	struct own_cgroup cgroup = { .parent_fd = -1, .return_fd = -1, .fd = -1 };
	char directory[PATH_MAX];
	int r = find_own(directory, ret_why);

	if (r)
		return fault(r);
	cgroup.parent_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cgroup.parent_fd < 0) {
		r = fault(-errno);
		text_printf(ret_why, "%s: %s", directory, strerror(-r));
		return r;
	}
	cgroup.return_fd = openat(cgroup.parent_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
	if (cgroup.return_fd < 0) {
		r = fault(-errno);
		text_printf(ret_why, "%s/cgroup.procs: %s", directory, strerror(-r));
		close_all(&cgroup);
		return r;
	}
	remove_stale(cgroup.parent_fd);
	r = make_and_enter(&cgroup);
	if (r) {
		text_printf(ret_why, "making a cgroup in %s and moving into it: %s", directory, strerror(-r));
		close_all(&cgroup);
		return r;
	}
	*ret_cgroup = cgroup;
	return 0;
}

/*
 * The root cgroup's directory has mode 0555: making a cgroup in it took a right that is given up by the time of
 * removing it. Its owner may let himself in, for as long as that takes.
 */
static int remove_own(const struct own_cgroup *cgroup)
{
	struct stat st;
	int r;

	if (unlinkat(cgroup->parent_fd, cgroup->name, AT_REMOVEDIR) == 0)
		return 0;
	if (errno != EACCES || fstat(cgroup->parent_fd, &st) < 0)
		return -errno;
	if (fchmod(cgroup->parent_fd, (st.st_mode | S_IWUSR) & ALLPERMS) < 0)
		return -EACCES;
	r = unlinkat(cgroup->parent_fd, cgroup->name, AT_REMOVEDIR) < 0 ? -errno : 0;
	if (fchmod(cgroup->parent_fd, st.st_mode & ALLPERMS & ~(mode_t)S_IWUSR) < 0)
		log_warning("the root cgroup's directory keeps mode u+w: %s", strerror(errno));
	return r;
}

void own_cgroup_leave(struct own_cgroup *cgroup)
{
	int r;

	if (!cgroup->name[0])
		return;
	r = write_self(cgroup->return_fd);
	if (r == 0)
		r = remove_own(cgroup);
	for (int i = 0; i < REMOVE_TRIES && r == -EBUSY; i++) {
		nanosleep(&(struct timespec){ .tv_nsec = REMOVE_WAIT_MS * NSEC_PER_MSEC }, NULL);
		r = remove_own(cgroup);
	}
	if (r)
		log_warning("cgroup %s is left behind: %s; the next edge removes it", cgroup->name, strerror(-r));
	close_all(cgroup);
}
