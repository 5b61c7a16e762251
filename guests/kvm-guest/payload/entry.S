/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a vCPU starts, at EL1 with the MMU on, and its exception vectors.
 * x0 is the address of its mailbox.
 */
#include "layout.h"

	.section .text.entry, "ax"
	.globl	_start
_start:
	msr	tpidr_el1, x0
	adr	x1, vectors
	msr	vbar_el1, x1
	isb
	add	x1, x0, #STACK_TOP_OFFSET
	mov	sp, x1
	bl	payload_main
	b	.

/* No exception is expected: tell the VMM which one came, and stay there. */
exception:
	mrs	x0, tpidr_el1
	mrs	x1, esr_el1
	str	x1, [x0, #MAILBOX_ESR]
	mrs	x1, elr_el1
	str	x1, [x0, #MAILBOX_ELR]
	mrs	x1, far_el1
	str	x1, [x0, #MAILBOX_FAR]
	dsb	sy
	mov	x0, #REPORT_IPA
	mov	x1, #REPORT_EXCEPTION
	str	x1, [x0]
	b	.

	.balign	2048
vectors:
	.rept	16
	.balign	128
	b	exception
	.endr
	.balign	128
