// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs on the host: starts a VMM (QEMU) and carries its console and its monitor
 * over standard input and output, line by line. docs/linux-guest.md has the lines.
 *
 *   linux-guest-vmm PROGRAM ARGUMENTS...
 *
 * The VMM gets the console's socket as fd 3 and the monitor's as fd 4, so there
 * is no path for others to find, and nothing to remove afterwards. It dies with
 * this program, however that ends, and this program ends with its input.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "compiler.h"

#define CONSOLE_FD	3
#define MONITOR_FD	4
/* A longer line is told in pieces; answers of the monitor are one line. */
#define LINE_MAX_BYTES	(1 << 20)

/* What comes from one source, and the word that its lines are told with. */
struct stream {
	const char *name;
	int fd;
	char *line;
	size_t length;
};

enum { INPUT, CONSOLE, MONITOR, ERRORS, STREAMS };

static struct stream streams[STREAMS] = {
	[INPUT] = { "input", STDIN_FILENO },
	[CONSOLE] = { "console", -1 },
	[MONITOR] = { "qmp", -1 },
	[ERRORS] = { "stderr", -1 },
};

static pid_t child;
static bool input_ended;

/* Who waits for the guest is told here when its time is over. A later one replaces it. */
static struct {
	bool set;
	unsigned int number;
	int64_t at;
} alarm_clock;

static void __noreturn die_errno(const char *what)
{
	fprintf(stderr, "linux-guest-vmm: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void __printf(1, 2) tell(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	/* Nobody is left to tell anything to: what was started ends with us. */
	if (fflush(stdout))
		exit(1);
}

/* Never waits: a VMM that does not read must not make this program deaf. */
static void send_line(struct stream *to, const char *text)
{
	size_t size = strlen(text) + 1;
	char *line = malloc(size);
	ssize_t sent;

	if (!line)
		die_errno("malloc");
	memcpy(line, text, size - 1);
	line[size - 1] = '\n';
	sent = send(to->fd, line, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	free(line);
	if (sent != (ssize_t)size)
		tell("error %s does not take a line of %zu bytes", to->name, size);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void set_alarm(const char *text)
{
	unsigned int number, ms;

	if (sscanf(text, "%u %u", &number, &ms) != 2) {
		tell("error alarm NUMBER MILLISECONDS");
		return;
	}
	alarm_clock.set = true;
	alarm_clock.number = number;
	alarm_clock.at = now_ms() + ms;
}

/* What is left until the alarm, for poll(2): -1 if none is set. */
static int until_alarm(void)
{
	int64_t left = alarm_clock.at - now_ms();

	if (!alarm_clock.set)
		return -1;
	return left > 0 ? left : 0;
}

static void ring(void)
{
	alarm_clock.set = false;
	tell("alarm %u", alarm_clock.number);
}

static void obey(char *line)
{
	char *rest = strchr(line, ' ');

	if (rest)
		*rest++ = '\0';
	if (!strcmp(line, "alarm") && rest)
		set_alarm(rest);
	else if (!strcmp(line, "console") && rest)
		send_line(&streams[CONSOLE], rest);
	else if (!strcmp(line, "qmp") && rest)
		send_line(&streams[MONITOR], rest);
	else
		tell("error unknown command");
}

static void end_line(struct stream *stream)
{
	/* A console ends its lines by CR LF; NUL would end the text. */
	while (stream->length && stream->line[stream->length - 1] == '\r')
		stream->length--;
	stream->line[stream->length] = '\0';
	stream->length = 0;
	if (stream == &streams[INPUT])
		obey(stream->line);
	else
		tell("%s %s", stream->name, stream->line);
}

static void close_stream(struct stream *stream)
{
	if (stream->length)
		end_line(stream);
	close(stream->fd);
	stream->fd = -1;
	if (stream == &streams[INPUT])
		input_ended = true;
}

static void take(struct stream *stream)
{
	char bytes[4096];
	ssize_t got = read(stream->fd, bytes, sizeof(bytes));

	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (got <= 0) {
		close_stream(stream);
		return;
	}
	for (ssize_t i = 0; i < got; i++) {
		if (bytes[i] == '\n' || stream->length == LINE_MAX_BYTES)
			end_line(stream);
		if (bytes[i] != '\n')
			stream->line[stream->length++] = bytes[i] ? bytes[i] : '?';
	}
}

/*
 * A guest writes its console byte by byte. To be woken for each would take a CPU
 * from it each time, so a line that has begun is left alone for a moment.
 */
static void let_lines_grow(void)
{
	const struct timespec moment = { .tv_nsec = 5000000 };

	if (streams[CONSOLE].length)
		nanosleep(&moment, NULL);
}

/* Until the VMM has closed all that it had of ours, or our own input has ended. */
static void relay(void)
{
	while (!input_ended) {
		struct pollfd polled[STREAMS];
		bool open = false;

		for (int i = 0; i < STREAMS; i++) {
			polled[i] = (struct pollfd){ .fd = streams[i].fd, .events = POLLIN };
			open |= i != INPUT && streams[i].fd >= 0;
		}
		if (!open)
			return;
		if (poll(polled, STREAMS, until_alarm()) < 0) {
			if (errno == EINTR)
				continue;
			die_errno("poll");
		}
		for (int i = 0; i < STREAMS; i++)
			if (polled[i].fd >= 0 && polled[i].revents)
				take(&streams[i]);
		let_lines_grow();
		if (!until_alarm())
			ring();
	}
}

static void __noreturn become(char **argv, int console, int monitor, int errors, pid_t parent)
{
	int nothing = open("/dev/null", O_RDONLY);

	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		die_errno("prctl");
	if (getppid() != parent)
		_exit(1);
	/* Above the targets first, so that none is overwritten before it is used. */
	console = fcntl(console, F_DUPFD, MONITOR_FD + 1);
	monitor = fcntl(monitor, F_DUPFD, MONITOR_FD + 1);
	errors = fcntl(errors, F_DUPFD, MONITOR_FD + 1);
	dup2(nothing, STDIN_FILENO);
	dup2(errors, STDOUT_FILENO);
	dup2(errors, STDERR_FILENO);
	dup2(console, CONSOLE_FD);
	dup2(monitor, MONITOR_FD);
	close_range(MONITOR_FD + 1, ~0U, 0);
	execvp(argv[0], argv);
	die_errno(argv[0]);
}

static void start(char **argv)
{
	int console[2], monitor[2], errors[2];
	pid_t parent = getpid();

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, monitor))
		die_errno("socketpair");
	if (pipe2(errors, O_CLOEXEC))
		die_errno("pipe2");
	child = fork();
	if (child < 0)
		die_errno("fork");
	if (!child)
		become(argv, console[1], monitor[1], errors[1], parent);
	close(console[1]);
	close(monitor[1]);
	close(errors[1]);
	streams[CONSOLE].fd = console[0];
	streams[MONITOR].fd = monitor[0];
	streams[ERRORS].fd = errors[0];
	for (int i = 0; i < STREAMS; i++) {
		streams[i].line = malloc(LINE_MAX_BYTES + 1);
		if (!streams[i].line)
			die_errno("malloc");
	}
}

int main(int argc, char **argv)
{
	int status;

	if (argc < 2) {
		fprintf(stderr, "usage: %s PROGRAM ARGUMENTS...\n", argv[0]);
		return 2;
	}
	start(argv + 1);
	tell("ready protocol=1 pid=%d", child);
	relay();
	/*
	 * Its end is told when all of it is gone, its VM with it. If it has
	 * ended by itself this signal reaches nobody: it is not reaped yet.
	 */
	if (input_ended)
		kill(child, SIGKILL);
	if (waitpid(child, &status, 0) != child)
		die_errno("waitpid");
	if (WIFSIGNALED(status))
		tell("end signal=%d", WTERMSIG(status));
	else
		tell("end status=%d", WEXITSTATUS(status));
	return 0;
}
