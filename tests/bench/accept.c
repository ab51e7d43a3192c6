/*
 * What tests/bench/accept.py measures with: a client that costs little, and two servers to compare
 * with.
 *
 *   accept client PORT CLIENTS COUNT EXPECTED  make COUNT connections, CLIENTS at once, each read to
 *                                              its end, which must come after EXPECTED bytes
 *   accept answer PORT                         write a byte to each connection, without a process
 *   accept spawn PORT COMMAND...               a process a connection, by vfork, on 0 and 1: the floor
 *
 * The client prints a line of seconds, its own seconds of processor time, and how many connections
 * were right and wrong (which includes those that had not ended after ten seconds), then the microseconds of each right one from connect() to its end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static struct sockaddr_in loopback(int last, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(0x7f000000 | last);
    return a;
}

struct client {
    int fd, got, broken;
    double begun;
};

/* One source address has some 28,000 ports, and each stays in TIME_WAIT for a minute. */
static void start(struct client *c, int epoll, int port, int number) {
    struct sockaddr_in from = loopback(2 + number % 250, 0), to = loopback(1, port);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int one = 1;
    c->got = c->broken = 0;
    if ((c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) < 0)
        err(1, "socket");
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (void *)&from, sizeof from))
        err(1, "bind");
    c->begun = now();
    if (connect(c->fd, (void *)&to, sizeof to) && errno != EINPROGRESS)
        c->broken = 1;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event))
        err(1, "epoll_ctl");
}

/* Read what is there; return whether that was the end. */
static int ended(struct client *c) {
    char data[4096];
    ssize_t n;
    while ((n = read(c->fd, data, sizeof data)) > 0)
        c->got += n;
    if (n < 0 && errno == EAGAIN)
        return 0;
    c->broken |= n < 0;
    return 1;
}

static int client(int port, int clients, int count, int expected) {
    struct client *all = calloc(clients, sizeof *all);
    double *took = calloc(count, sizeof *took);
    struct epoll_event events[64];
    int epoll = epoll_create1(0), started = 0, done = 0, right = 0;
    double begun = now(), spent;
    struct rusage usage;
    while (started < clients && started < count) {
        start(&all[started], epoll, port, started);
        started++;
    }
    while (done < count && now() - begun < 10) {
        int n = epoll_wait(epoll, events, 64, 1000);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (!ended(c))
                continue;
            if (!c->broken && c->got == expected)
                took[right++] = now() - c->begun;
            close(c->fd);
            done++;
            if (started < count)
                start(c, epoll, port, started++);
        }
    }
    spent = now() - begun;
    getrusage(RUSAGE_SELF, &usage);
    printf("%.6f %.6f %d %d\n", spent,
           usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
               (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
           right, count - right);
    for (int i = 0; i < right; i++)
        printf("%.1f ", took[i] * 1e6);
    putchar('\n');
    return 0;
}

static int listener(int port) {
    struct sockaddr_in at = loopback(1, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&at, sizeof at) || listen(fd, 4096))
        err(1, "listen");
    return fd;
}

static void answer(int port) {
    int fd = listener(port);
    for (;;) {
        int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (write(c, "x", 1) < 0)
            warn("write");
        close(c);
    }
}

static void spawn(int port, char **command) {
    int fd = listener(port);
    signal(SIGCHLD, SIG_IGN); /* reaped by the kernel */
    for (;;) {
        int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        pid_t pid = vfork();
        if (!pid) {
            dup2(c, 0);
            dup2(c, 1);
            execve(command[0], command, environ);
            _exit(127);
        }
        if (pid < 0)
            err(1, "vfork");
        close(c);
    }
}

int main(int argc, char **argv) {
    if (argc == 6 && !strcmp(argv[1], "client"))
        return client(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
    if (argc == 3 && !strcmp(argv[1], "answer"))
        answer(atoi(argv[2]));
    if (argc > 3 && !strcmp(argv[1], "spawn"))
        spawn(atoi(argv[2]), argv + 3);
    errx(2, "wrong arguments");
}
