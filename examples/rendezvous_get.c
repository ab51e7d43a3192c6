/*
 * A client of the rendezvous protocol, sockact-rendezvous(7), in plain C on Linux.
 *
 *   cc -Wall -o rendezvous_get examples/rendezvous_get.c
 *   sockact hold /run/web.rdv --listen web=tcp:127.0.0.1:8080 &
 *   ./rendezvous_get /run/web.rdv web -- ./c_listen
 *
 * It gets the sockets with these names, without a name all of them, and becomes the command, which
 * inherits them as from systemd: LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES, descriptors from 3 on.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 8, BYTES_MAX = 65536, ENTRIES_MAX = 65536, FDS_MAX = 253, DEPTH_MAX = 32 };
enum { SECONDS = 20, FIRST = 3, FOREIGN = 0x7f };

static struct { uint64_t device, inode; int fd; } entries[ENTRIES_MAX];
static char fd_names[100000]; /* with colons between; Linux takes 128 KiB in one variable */

static _Noreturn void die(const char *format, ...) {
	va_list arguments;

	va_start(arguments, format);
	fputs("rendezvous_get: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

/* A JSON value, from where it begins to the end of the message. Whatever is malformed is fatal. */
struct json { const char *at, *end; };

static int take(struct json *j) {
	if (j->at == j->end)
		die("a message ends too early");
	return (unsigned char)*j->at++;
}

static int peek(struct json *j) {
	while (j->at < j->end && *j->at && strchr(" \t\r\n", *j->at))
		j->at++;
	return j->at < j->end ? (unsigned char)*j->at : 0;
}

static void expect(struct json *j, char wanted) {
	peek(j);
	if (take(j) != wanted)
		die("a message is malformed, %c was due", wanted);
}

/* Read a string and return its length. What `out` has no room for is dropped; what is no ASCII,
 * and so in no name that systemd allows, becomes FOREIGN. */
static size_t get_text(struct json *j, char *out, size_t size) {
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	size_t length = 0;
	int c;

	expect(j, '"');
	for (; (c = take(j)) != '"'; length++) {
		if (c < ' ')
			die("a message is malformed, a string has a control character");
		if (c == '\\') {
			const char *escape;

			c = take(j);
			if (c == 'u') {
				c = 0;
				for (int i = 0; i < 4; i++) {
					int digit = take(j);

					if (!isxdigit(digit))
						die("a message is malformed, a digit was due");
					c = c * 16 + (isdigit(digit) ? digit - '0' : (digit | 0x20) - 'a' + 10);
				}
			} else if (c && (escape = strchr(from, c))) {
				c = to[escape - from];
			} else {
				die("a message is malformed, an escape is unknown");
			}
		}
		if (length + 1 < size)
			out[length] = (char)(c > 0 && c < 0x80 ? c : FOREIGN);
	}
	if (size)
		out[length < size ? length : size - 1] = '\0';
	return length;
}

static uint64_t get_number(struct json *j) {
	uint64_t value = 0;
	const char *begin = (peek(j), j->at);

	do {
		int digit = take(j);

		if (!isdigit(digit) || (*begin == '0' && j->at > begin + 1))
			die("a message is malformed, a number was due");
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(digit - '0'), &value))
			die("a number is too large");
	} while (j->at < j->end && *j->at && strchr("0123456789+-.eE", *j->at));
	return value;
}

static bool get_word(struct json *j, const char *word) {
	size_t length = strlen(word);

	peek(j);
	if ((size_t)(j->end - j->at) < length || memcmp(j->at, word, length))
		return false;
	j->at += length;
	return true;
}

static void skip(struct json *j, int depth) {
	int open = peek(j);

	if (depth > DEPTH_MAX)
		die("a message is nested too deeply");
	if (open == '"') {
		get_text(j, NULL, 0);
	} else if (open == '{' || open == '[') {
		int close = open == '{' ? '}' : ']';

		take(j);
		for (bool first = true; first ? peek(j) != close : peek(j) == ','; first = false) {
			if (!first)
				take(j);
			if (open == '{') {
				get_text(j, NULL, 0);
				expect(j, ':');
			}
			skip(j, depth + 1);
		}
		expect(j, (char)close);
	} else if (open == '-' || isdigit(open)) { /* nobody looks at it: its form does not matter */
		while (j->at < j->end && *j->at && strchr("0123456789+-.eE", *j->at))
			j->at++;
	} else if (!get_word(j, "true") && !get_word(j, "false") && !get_word(j, "null")) {
		die("a message is malformed, a value was due");
	}
}

/* Find the value of a key of this object; objects within it are passed over whole. */
static bool find(struct json object, const char *wanted, struct json *value) {
	bool found = false;
	char key[32];

	expect(&object, '{');
	for (bool first = true; peek(&object) != '}'; first = false) {
		if (!first)
			expect(&object, ',');
		size_t length = get_text(&object, key, sizeof key);
		expect(&object, ':');
		if (length < sizeof key && !strcmp(key, wanted)) {
			*value = object;
			found = true;
		}
		skip(&object, 0);
	}
	return found;
}

static uint64_t find_number(struct json object, const char *key) {
	struct json value;

	if (!find(object, key, &value))
		die("a message lacks %s", key);
	return get_number(&value);
}

/* A column of a manifest: a list, or one value for every entry, or nothing. */
struct column { struct json at, item; bool there, list; };

static struct column column(struct json manifest, const char *name) {
	struct column c = { 0 };

	c.there = find(manifest, name, &c.at);
	c.list = c.there && peek(&c.at) == '[';
	return c;
}

static struct json *item(struct column *c, bool first) {
	if (c->list) {
		expect(&c->at, first ? '[' : ',');
		return &c->at;
	}
	c->item = c->at;
	return c->there ? &c->item : NULL;
}

static void end_column(struct column *c) {
	if (c->list)
		expect(&c->at, ']');
}

static void say(int sock, const char *body) {
	size_t length = strlen(body);
	uint32_t size = htonl((uint32_t)length);
	char header[HEADER] = { 's', 'a', 1, 0 };
	struct iovec parts[] = { { header, HEADER }, { (char *)body, length } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

	memcpy(header + 4, &size, sizeof size);
	/* An owner that has closed may have said why: hear() reads that. */
	if (sendmsg(sock, &message, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		die("cannot send: %s", strerror(errno));
}

static void wait_readable(int sock) {
	static time_t end;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!end)
		end = now.tv_sec + SECONDS;
	if (now.tv_sec >= end ||
	    poll(&(struct pollfd) { sock, POLLIN, 0 }, 1, (int)(end - now.tv_sec) * 1000) < 1)
		die("the owner takes too long");
}

/* Wait for a message of a type and return its body, good until the next call; with `fds`, which has
 * room for FDS_MAX, it may bring descriptors. Those of a faulty message end with the process. */
static struct json hear(int sock, const char *wanted, int *fds, size_t *count) {
	static char buffer[BYTES_MAX];
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)]; } control;
	struct iovec part = { buffer, sizeof buffer };
	struct json body, value;
	char type[32], reason[64] = "", text[512] = "";
	bool reset = false;

	for (;;) {
		struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1,
			.msg_control = &control, .msg_controllen = sizeof control };
		size_t n = 0;
		uint32_t size;

		wait_readable(sock);
		ssize_t got = recvmsg(sock, &message, MSG_CMSG_CLOEXEC);
		if (got < 0 && errno == ECONNRESET && !reset) {
			reset = true; /* what the owner said before it closed comes after this */
			continue;
		}
		if (got <= 0)
			die("the owner has closed: %s", got ? strerror(errno) : "nothing more was said");
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
			if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
				die("a message has control data that was not asked for");
			n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); /* there is one at most */
			if (fds)
				memcpy(fds, CMSG_DATA(c), n * sizeof(int));
		}
		if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
			die("a message is too long, or has lost descriptors (RLIMIT_NOFILE)");
		if (got < HEADER || memcmp(buffer, "sa\1", 3))
			die("the peer does not speak the rendezvous protocol");
		memcpy(&size, buffer + 4, sizeof size);
		if (ntohl(size) != (size_t)got - HEADER || (unsigned char)buffer[3] != n || (n && !fds))
			die("a message is not as long, or has not the descriptors, that it says");
		body = value = (struct json) { buffer + HEADER, buffer + got };
		skip(&value, 0);
		peek(&value);
		if (value.at != value.end || !find(body, "type", &value))
			die("a message is malformed, it has no type");
		if (get_text(&value, type, sizeof type) >= sizeof type)
			die("a message has an unknown type");
		if (count)
			*count = n;
		if (!strcmp(type, wanted))
			return body;
		if (strcmp(type, "alive"))
			break;
	}
	if (strcmp(type, "refuse") && strcmp(type, "abort"))
		die("the owner has sent another message than %s", wanted);
	if (find(body, "reason", &value))
		get_text(&value, reason, sizeof reason);
	if (find(body, "text", &value))
		get_text(&value, text, sizeof text);
	for (char *c = reason; *c; c++)
		*c = *c < ' ' || *c == FOREIGN ? '?' : *c;
	for (char *c = text; *c; c++)
		*c = *c < ' ' || *c == FOREIGN ? '?' : *c;
	die("the owner says no: %s (%s)", text, reason);
}

static int connect_to(const char *path) {
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = SECONDS };
	struct ucred peer;
	socklen_t length = sizeof peer;
	unsigned nobody = 65534;
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof address.sun_path)
		die("%s: the path is too long", path);
	strcpy(address.sun_path, path);
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	if (connect(sock, (struct sockaddr *)&address, sizeof address) < 0 ||
	    getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		die("%s: %s", path, strerror(errno));
	FILE *file = fopen("/proc/sys/kernel/overflowuid", "re");
	if (file) { /* whoever has it may be anybody, see user_namespaces(7) */
		if (fscanf(file, "%u", &nobody) != 1)
			die("/proc/sys/kernel/overflowuid cannot be read");
		fclose(file);
	}
	if (peer.uid == nobody || (peer.uid != 0 && peer.uid != geteuid()))
		die("%s: the owner is uid %u, which is neither root nor you", path, peer.uid);
	return sock;
}

static void request(int sock, char **names, char **end) {
	static char body[BYTES_MAX - HEADER + 1];
	FILE *out = fmemopen(body, sizeof body - 1, "w");

	if (!out)
		die("%s", strerror(errno));
	fputs("{\"type\":\"request\",\"op\":\"get\",\"names\":[", out);
	for (char **name = names; name < end; name++) {
		fputs(name == names ? "\"" : ",\"", out);
		for (const char *c = *name; *c; c++)
			if (*c > 0 && *c < ' ')
				fprintf(out, "\\u%04x", *c);
			else
				fprintf(out, *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
		fputc('"', out);
	}
	fputs("]}", out);
	if (fflush(out) == EOF || ferror(out))
		die("these are too many names");
	fclose(out);
	say(sock, body);
}

/* Read the manifest into `entries` and `fd_names`; return how many descriptors there will be. */
static size_t hear_offer(int sock) {
	size_t have = 0, used = 0, count;
	bool more;

	do {
		struct json value, offer = hear(sock, "offer", NULL, NULL), manifest;

		count = find_number(offer, "count");
		more = find(offer, "more", &value) && get_word(&value, "true");
		if (!find(offer, "entries", &manifest))
			die("an offer has no entries");
		size_t part = find_number(manifest, "count");
		if (!part || count > ENTRIES_MAX || part > count - have || more == (part == count - have))
			die("the parts of the manifest contradict each other");
		struct column name = column(manifest, "name"), device = column(manifest, "device"),
			      inode = column(manifest, "inode");
		for (size_t i = 0; i < part; i++, have++) {
			struct json *text = item(&name, i == 0), *number = item(&device, i == 0);
			char *begin = fd_names + used, *c = begin;

			if (sizeof fd_names - used < 258)
				die("the names of the sockets are too long for LISTEN_FDNAMES");
			if (!text || get_text(text, begin, 256) > 255)
				die("a name is missing or too long");
			for (; *c; c++)
				if (*c < ' ' || *c == FOREIGN || *c == ':' || *c == '\\')
					die("a name has a character that LISTEN_FDNAMES cannot carry");
			*c = ':';
			used += (size_t)(c + 1 - begin);
			entries[have].device = number ? get_number(number) : 0;
			number = item(&inode, i == 0);
			entries[have].inode = number ? get_number(number) : 0;
		}
		end_column(&name);
		end_column(&device);
		end_column(&inode);
	} while (more);
	fd_names[used - 1] = '\0';
	return count;
}

static void hear_fds(int sock, size_t count) {
	int fds[FDS_MAX];
	char ack[64];

	for (size_t have = 0, n; have < count; ) {
		struct json body = hear(sock, "fds", fds, &n);

		if (!n || n > count - have || find_number(body, "first") != have ||
		    find_number(body, "count") != n)
			die("other descriptors came than were announced");
		for (size_t i = 0; i < n; i++, have++) {
			struct stat status;

			if (fstat(fds[i], &status) < 0 || status.st_dev != entries[have].device ||
			    status.st_ino != entries[have].inode) {
				say(sock, "{\"type\":\"abort\",\"reason\":\"mismatch\"}");
				die("descriptor %zu is not the one that the manifest names", have);
			}
			entries[have].fd = fds[i];
		}
		snprintf(ack, sizeof ack, "{\"type\":\"ack\",\"count\":%zu}", have);
		say(sock, ack);
	}
	say(sock, "{\"type\":\"adopted\"}");
}

static void put_in_place(size_t count) {
	for (size_t i = 0; i < count; i++) { /* first out of the way of each other */
		int above = fcntl(entries[i].fd, F_DUPFD_CLOEXEC, FIRST + (int)count);

		if (above < 0)
			die("%s", strerror(errno));
		close(entries[i].fd);
		entries[i].fd = above;
	}
	for (size_t i = 0; i < count; i++)
		if (dup2(entries[i].fd, FIRST + (int)i) < 0)
			die("%s", strerror(errno));
}

static void set_number(const char *name, size_t number) {
	char text[32];

	snprintf(text, sizeof text, "%zu", number);
	if (setenv(name, text, 1) < 0)
		die("%s", strerror(errno));
}

int main(int argc, char **argv) {
	struct rlimit limit;
	int dashes = 2, null;

	while (dashes < argc && strcmp(argv[dashes], "--"))
		dashes++;
	if (dashes + 1 >= argc) {
		fputs("Usage: rendezvous_get PATH [NAME...] -- COMMAND [ARGUMENT...]\n", stderr);
		return 2;
	}
	while ((null = open("/dev/null", O_RDWR)) >= 0 && null < FIRST)
		continue; /* where standard output was closed, no socket may take its place */
	close(null);

	int sock = connect_to(argv[1]);
	say(sock, "{\"type\":\"hello\",\"oldest\":1,\"newest\":1,\"program\":\"rendezvous_get\"}");
	if (find_number(hear(sock, "welcome", NULL, NULL), "version") != 1)
		die("the owner speaks another version");
	request(sock, argv + 2, argv + dashes);
	size_t count = hear_offer(sock);
	/* If there were no room, the kernel would drop descriptors without an error: look before. */
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < FIRST + 2 * count + 16) {
		say(sock, "{\"type\":\"refuse\",\"reason\":\"limit\",\"text\":\"RLIMIT_NOFILE\"}");
		die("%zu descriptors are too many for RLIMIT_NOFILE", count);
	}
	say(sock, "{\"type\":\"accept\"}");
	hear_fds(sock, count);
	close(sock);

	put_in_place(count);
	set_number("LISTEN_FDS", count);
	set_number("LISTEN_PID", (size_t)getpid());
	unsetenv("LISTEN_PIDFDID");
	if (setenv("LISTEN_FDNAMES", fd_names, 1) < 0)
		die("%s", strerror(errno));
	execvp(argv[dashes + 1], argv + dashes + 1);
	int error = errno;
	fprintf(stderr, "rendezvous_get: %s: %s\n", argv[dashes + 1], strerror(error));
	return error == ENOENT ? 127 : 126;
}
