# SPDX-License-Identifier: GPL-2.0-only
"""From a source and a series to kernels: source.resolve, series.load, apply.apply, build.build."""
