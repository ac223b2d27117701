#define _GNU_SOURCE
#include "linux_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int passhsm_unix_socket(void) { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }

static int set_path(struct sockaddr_un *address, const char *path)
{
    size_t length = strlen(path);
    if (length >= sizeof address->sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length);
    return 0;
}

int passhsm_unix_bind(int fd, const char *path)
{
    struct sockaddr_un address;
    if (set_path(&address, path)) return -1;
    return bind(fd, (struct sockaddr *)&address, sizeof address);
}

int passhsm_unix_connect(int fd, const char *path)
{
    struct sockaddr_un address;
    if (set_path(&address, path)) return -1;
    return connect(fd, (struct sockaddr *)&address, sizeof address);
}

int passhsm_accept(int fd) { return accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK); }

int passhsm_peer_uid(int fd, uint32_t *uid)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size)) return -1;
    *uid = peer.uid;
    return 0;
}

long passhsm_send(int fd, const void *bytes, size_t count) { return send(fd, bytes, count, MSG_NOSIGNAL); }
