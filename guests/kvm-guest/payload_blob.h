/* SPDX-License-Identifier: GPL-2.0-only */
/* The payload's flat binary, as payload_blob.S holds it. */
#ifndef PAYLOAD_BLOB_H
#define PAYLOAD_BLOB_H

extern const char payload_start[], payload_end[];

#endif
