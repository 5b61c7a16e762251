# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness mutants`: kernels wrong on purpose, and which check catches each of them."""
