/*
 * A C program on libsystemd that knows nothing of sockact.
 *
 *   cc -Wall -o c_listen examples/c_listen.c -lsystemd
 *   sockact exec --listen web=tcp:127.0.0.1:8080 -- ./c_listen
 *
 * It answers every connection with the name of the descriptor that it came in on.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define MOST 64

int main(void) {
	char **names = NULL;
	struct pollfd fds[MOST];
	int n = sd_listen_fds_with_names(1, &names);

	if (n < 1 || n > MOST) {
		fprintf(stderr, "c_listen: %s\n", n < 0 ? strerror(-n) : "expected 1 to 64 sockets");
		return EXIT_FAILURE;
	}
	for (int i = 0; i < n; i++) {
		fds[i] = (struct pollfd) { .fd = SD_LISTEN_FDS_START + i, .events = POLLIN };
		if (sd_is_socket(fds[i].fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0) {
			fprintf(stderr, "c_listen: %s is not a listening stream socket\n", names[i]);
			return EXIT_FAILURE;
		}
	}
	sd_notify(0, "READY=1");
	for (;;) {
		if (poll(fds, n, -1) < 0)
			return EXIT_FAILURE;
		for (int i = 0; i < n; i++) {
			char request[4096], reply[512];
			int c, length;

			if (!(fds[i].revents & POLLIN) || (c = accept(fds[i].fd, NULL, NULL)) < 0)
				continue;
			if (read(c, request, sizeof request) > 0) {
				length = snprintf(reply, sizeof reply,
						  "HTTP/1.0 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
						  strlen(names[i]), names[i]);
				if (write(c, reply, length) < 0)
					perror("c_listen: write");
			}
			close(c);
		}
	}
}
