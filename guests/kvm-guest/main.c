// SPDX-License-Identifier: GPL-2.0-only
/*
 * kvm-guest: a small user of KVM/arm64 whose guest touches pages on command.
 * It is driven line by line over standard input and output; the protocol is
 * documented in docs/guest-protocol.md.
 */
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "commands.h"
#include "idle_ager.h"
#include "keeper.h"
#include "numa.h"
#include "protocol.h"
#include "reaper.h"
#include "reply.h"
#include "serve.h"

#define OPTIONS \
	"[--backing anon|thp|hugetlb|hugetlbshared|contiguous|gigantic|memfd|memfdthp|file|fileprivate] [--file PATH] " \
	"[--pages N] [--skew N] [--ipa-skew N] [--low] [--far] [--wide] [--eager-split huge|gigantic] " \
	"[--shared-payload] [--manual-log clear|set] [--ring ENTRIES] [--second slot|above|vm] [--vcpus N] " \
	"[--timeout SECONDS]" \
	" | --keeper NAME [--timeout SECONDS] | --idle-ager [--timeout SECONDS]" \
	" | --reaper [--timeout SECONDS]"
#define DEFAULT_PAGES 4096
#define DEFAULT_TIMEOUT 20.0
#define MAX_TIMEOUT 86400.0
#define EXIT_USAGE 2

static _Noreturn void usage(const char *why)
{
	reply_error("usage", "%s; kvm-guest " OPTIONS, why);
	reply_send();
	exit(EXIT_USAGE);
}

static uint32_t parse_option(const char *word, uint32_t limit, const char *what)
{
	uint32_t number = 0;

	if (parse_number(word, limit, what, &number) || !number)
		usage(what);
	return number;
}

static double parse_timeout(const char *word)
{
	char *end;
	double seconds = strtod(word, &end);

	if (end == word || *end || !(seconds > 0) || seconds > MAX_TIMEOUT)
		usage("--timeout");
	return seconds;
}

static uint64_t parse_chunk(const char *word)
{
	if (!strcmp(word, "huge"))
		return HUGE_PAGE_SIZE;
	if (!strcmp(word, "gigantic"))
		return GIGANTIC_PAGE_SIZE;
	usage("--eager-split");
}

static enum manual_log parse_manual_log(const char *word)
{
	if (!strcmp(word, "clear"))
		return MANUAL_LOG_CLEAR;
	if (!strcmp(word, "set"))
		return MANUAL_LOG_SET;
	usage("--manual-log");
}

static enum second parse_second(const char *word)
{
	if (!strcmp(word, "slot"))
		return SECOND_SLOT;
	if (!strcmp(word, "above"))
		return SECOND_ABOVE;
	if (!strcmp(word, "vm"))
		return SECOND_VM;
	usage("--second");
}

/* What is not a VM of ours. */
struct other {
	const char *keeper;
	bool idle_ager;
	bool reaper;
};

static void parse_options(struct vm *vm, struct other *other, int argc, char **argv)
{
	static const struct option options[] = {
		{ "backing", required_argument, NULL, 'b' },
		{ "file", required_argument, NULL, 'f' },
		{ "pages", required_argument, NULL, 'p' },
		{ "skew", required_argument, NULL, 's' },
		{ "ipa-skew", required_argument, NULL, 'i' },
		{ "low", no_argument, NULL, 'l' },
		{ "far", no_argument, NULL, 'r' },
		{ "wide", no_argument, NULL, 'w' },
		{ "eager-split", required_argument, NULL, 'e' },
		{ "shared-payload", no_argument, NULL, 'y' },
		{ "manual-log", required_argument, NULL, 'm' },
		{ "ring", required_argument, NULL, 'g' },
		{ "second", required_argument, NULL, '2' },
		{ "vcpus", required_argument, NULL, 'c' },
		{ "timeout", required_argument, NULL, 't' },
		{ "keeper", required_argument, NULL, 'k' },
		{ "idle-ager", no_argument, NULL, 'a' },
		{ "reaper", no_argument, NULL, 'd' },
		{ }
	};
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (option) {
		case 'b':
			if (!backing_parse(optarg, &vm->backing))
				usage("--backing");
			break;
		case 'f':
			vm->file = optarg;
			break;
		case 'p':
			vm->pages = parse_option(optarg, MAX_PAGES + 1, "--pages");
			break;
		case 's':
			vm->skew = parse_option(optarg, HUGE_PAGE_SIZE / GUEST_PAGE_SIZE, "--skew");
			break;
		case 'i':
			vm->ipa_skew = parse_option(optarg, GIGANTIC_PAGE_SIZE / GUEST_PAGE_SIZE,
						    "--ipa-skew");
			break;
		case 'l':
			vm->low = true;
			break;
		case 'r':
			vm->far = true;
			break;
		case 'w':
			vm->far = true;
			vm->wide = true;
			break;
		case 'e':
			vm->split_chunk = parse_chunk(optarg);
			break;
		case 'y':
			vm->shared_payload = true;
			break;
		case 'm':
			vm->manual_log = parse_manual_log(optarg);
			break;
		case 'g':
			vm->ring = parse_option(optarg, RING_MAX + 1, "--ring");
			break;
		case '2':
			vm->second = parse_second(optarg);
			break;
		case 'c':
			vm->vcpu_count = parse_option(optarg, MAX_VCPUS + 1, "--vcpus");
			break;
		case 't':
			vm->timeout = parse_timeout(optarg);
			break;
		case 'k':
			other->keeper = optarg;
			break;
		case 'a':
			other->idle_ager = true;
			break;
		case 'd':
			other->reaper = true;
			break;
		default:
			usage("unknown option");
		}
	}
	if (optind != argc)
		usage("unexpected argument");
	if (backing_is_file(vm->backing) != !!vm->file)
		usage("--file and a backing that is a file belong together");
	if (vm->low && (vm->far || ((uint64_t)vm->pages + vm->ipa_skew) << GUEST_PAGE_SHIFT >
				   REPORT_IPA))
		usage("--low is below the address of reports, and not far");
	if (vm->second && vm->vcpu_count < 2)
		usage("--second is what vCPUs but the first have");
	if (vm->ring && (vm->ring < RING_MIN || vm->ring & (vm->ring - 1)))
		usage("--ring must be a power of two from 256 to 65536");
	if (vm->ring && (vm->second || vm->manual_log))
		usage("--ring has neither --second nor --manual-log");
	if (backing_page_size(vm->backing) > HUGE_PAGE_SIZE && vm->skew)
		usage("--skew would take a further page of the pool");
	if (vm->pages % (backing_page_size(vm->backing) / GUEST_PAGE_SIZE))
		usage("--pages must be a multiple of what a huge page has: 512, 8192 or 262144");
}

static void greet(const struct vm *vm)
{
	reply_begin("ready");
	fprintf(reply, " protocol=%d pid=%d vmfd=%d page_size=%d", PROTOCOL, getpid(), vm->fd,
		GUEST_PAGE_SIZE);
	fprintf(reply, " slot_ipa=0x%" PRIx64 " slot_hva=0x%" PRIxPTR " pages=%" PRIu32,
		vm_slot_ipa(vm), (uintptr_t)vm->slot, vm->pages);
	fprintf(reply, " payload_ipa=0x%" PRIx64 " payload_pages=%zu", vm_payload_ipa(vm),
		vm->payload_size / GUEST_PAGE_SIZE);
	fprintf(reply, " vcpus=%u backing=%s", vm->vcpu_count, backing_name(vm->backing));
	if (vm->second)
		fprintf(reply, " second_vmfd=%d second_ipa=0x%" PRIx64,
			vm->other ? vm->other->fd : vm->fd, vm_second_ipa(vm));
	reply_send();
}

int main(int argc, char **argv)
{
	static struct vm vm = {
		.backing = BACKING_ANON,
		.pages = DEFAULT_PAGES,
		.vcpu_count = 1,
		.timeout = DEFAULT_TIMEOUT,
	};
	struct other other = {};

	/*
	 * Giving memory back to the host means TLB invalidations, which QEMU's TCG
	 * applies to the vCPUs too: keep what was once taken.
	 */
	mallopt(M_MMAP_MAX, 0);
	mallopt(M_TRIM_THRESHOLD, INT_MAX);

	reply_init();
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		die_errno("prctl(PR_SET_PDEATHSIG)");
	parse_options(&vm, &other, argc, argv);
	if (other.keeper) {
		keeper_serve(other.keeper, vm.timeout);
		return EXIT_SUCCESS;
	}
	if (other.idle_ager)
		idle_ager_serve(vm.timeout);
	if (other.reaper)
		reaper_serve(vm.timeout);
	if (sysconf(_SC_PAGESIZE) != GUEST_PAGE_SIZE)
		die("the host's pages are of %ld bytes; only 4096 is supported",
		    sysconf(_SC_PAGESIZE));
	numa_stay();
	vm_create(&vm);
	greet(&vm);
	serve(command_run, &vm);
	/* The vCPUs' threads end with the process, wherever they are. */
	_exit(EXIT_SUCCESS);
}
