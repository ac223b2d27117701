/* UNIX sockets: sockaddr_un, SOCK_* as an enum, and GNU names (accept4, struct ucred). */
#ifndef PASSHSM_LINUX_SOCKET_H
#define PASSHSM_LINUX_SOCKET_H
#include <stddef.h>
#include <stdint.h>

/* socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK) */
int passhsm_unix_socket(void);
/* bind(2) and connect(2) by path; ENAMETOOLONG beyond 107 bytes. */
int passhsm_unix_bind(int fd, const char *path);
int passhsm_unix_connect(int fd, const char *path);
/* accept4(SOCK_CLOEXEC | SOCK_NONBLOCK) */
int passhsm_accept(int fd);
/* getsockopt(SO_PEERCRED): the user id of the other side when it connected. */
int passhsm_peer_uid(int fd, uint32_t *uid);
/* send(MSG_NOSIGNAL) */
long passhsm_send(int fd, const void *bytes, size_t count);

#endif
