/* SPDX-License-Identifier: GPL-2.0-only */
/* The kernel's words for what a compiler should know of a function. */
#ifndef COMPILER_H
#define COMPILER_H

#ifndef __printf
#define __printf(a, b) __attribute__((__format__(printf, a, b)))
#endif
#ifndef __noreturn
#define __noreturn __attribute__((__noreturn__))
#endif

#endif
