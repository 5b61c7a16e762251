/* SPDX-License-Identifier: GPL-2.0-only */
/* Aging of the tested pages by page_idle, for other commands. */
#ifndef IDLE_H
#define IDLE_H

/* 0 if there was an idle-mark, else -1 with an error as the reply. */
int idle_check_marked(void);

/* Sets again the bits that it set; 0, or -1 with the error as the reply. */
int idle_mark_again(void);

#endif
