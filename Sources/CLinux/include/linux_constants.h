/* Constants that <fcntl.h> and <unistd.h> show only under _GNU_SOURCE, which Swift's Glibc module is built without. */
#ifndef PASSHSM_LINUX_CONSTANTS_H
#define PASSHSM_LINUX_CONSTANTS_H

extern const int PASSHSM_O_PATH, PASSHSM_O_TMPFILE, PASSHSM_O_DIRECT, PASSHSM_O_NOATIME;
extern const int PASSHSM_AT_EMPTY_PATH;
extern const unsigned PASSHSM_RENAME_WHITEOUT;
/* Mount flags as statvfs(3) gives them. */
extern const unsigned long PASSHSM_ST_NOSUID, PASSHSM_ST_NODEV, PASSHSM_ST_NOEXEC;
extern const int PASSHSM_SEEK_DATA, PASSHSM_SEEK_HOLE;
extern const int PASSHSM_FALLOC_KEEP_SIZE, PASSHSM_FALLOC_PUNCH_HOLE, PASSHSM_FALLOC_ZERO_RANGE,
    PASSHSM_FALLOC_COLLAPSE_RANGE, PASSHSM_FALLOC_INSERT_RANGE, PASSHSM_FALLOC_UNSHARE_RANGE;

#endif
