/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A process that keeps the fd of somebody else's VM open. It shares nothing
 * else with the VM's owner, so that the owner's memory can go while the VM stays.
 */
#ifndef KEEPER_H
#define KEEPER_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Where the keeper of a name listens; false if no socket can be called so. */
bool keeper_address(const char *name, struct sockaddr_un *address, socklen_t *size);

/*
 * Listens and serves until the end of input, @seconds at most: then SIGALRM ends
 * it, so that no VM outlives the one who asked for this.
 */
void keeper_serve(const char *name, double seconds);

#endif
