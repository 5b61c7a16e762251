/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef PROTOCOL_H
#define PROTOCOL_H

/* The version of docs/guest-protocol.md that the greeting names. */
#define PROTOCOL 1

#endif
