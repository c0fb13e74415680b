/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cgroup (version 2) of the process's own, so that a program attached to it meets no other process's sockets. It is
 * made below the cgroup that the process was started in, as tidegate-edge-PID; it has no limits and counts nothing.
 *
 * What a killed process left behind is removed by the next one that starts beside it: the kernel only removes cgroups
 * in which nobody is.
 */
#pragma once

#include "base/text.h"

struct own_cgroup {
	int parent_fd; /* its directory */
	int return_fd; /* cgroup.procs of the parent: opened with rights that are given up later */
	int fd;	       /* the own cgroup's directory, to attach programs to */
	char name[48]; /* empty: there is none */
};

/**
 * own_cgroup_enter() - make the cgroup and move the process into it, with all its threads
 * @ret_why: on failure, one line for people
 *
 * Sockets belong to the cgroup in which they were made, so this goes before them.
 *
 * Return: 0; -errno (-ENOENT without cgroup v2, -EROFS, -EACCES), and the process is where it was.
 */
MUST_CHECK int own_cgroup_enter(struct own_cgroup *ret_cgroup, struct text *ret_why);

/** own_cgroup_leave() - go back and remove it; one that was not entered is accepted if all zero */
void own_cgroup_leave(struct own_cgroup *cgroup);
