/* SPDX-License-Identifier: GPL-2.0-only */
/* The payload's flat binary, as data of the VMM. */
	.section .rodata
	.balign	8
	.globl	payload_start
payload_start:
	.incbin	"payload.bin"
	.globl	payload_end
payload_end:
	.section .note.GNU-stack, "", @progbits
