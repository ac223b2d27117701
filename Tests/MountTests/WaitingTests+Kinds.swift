import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests.Waiting {
    /// Every call that can wait for content, by the name that the program below has for it.
    private static let kinds = [
        "read", "write", "preadv2", "direct-read", "direct-write", "aio-read", "aio-write", "aio-direct-read",
        "aio-direct-write", "ring-read", "ring-write", "ring-direct-read", "ring-direct-write", "splice", "sendfile",
        "copy-from", "copy-to", "punch", "load", "store", "populate", "lock", "exec", "open",
    ]
    private static let size = 3 << 20
    /// Of the 4 KiB that they want.
    private static let place = 1 << 20 | 4096

    /// With a file for each kind, the remote held, and a process of each that waits.
    private func withWaiters(_ body: (Mirror, [String: Child]) throws -> Void) throws {
        try withMirror { mirror throws in
            for name in Self.kinds {
                try Pattern.write(mirror.remote(name), size: name == "open" ? 9000 : Self.size)
                chmod(mirror.remote(name), 0o755)
            }
        } _: { mirror throws in
            let program = mirror.scratch.path + "/waiter"
            try shell("gcc -o \"$1\" -xc - <<<\"$2\"", [program, Self.program])
            try mirror.hold()
            var waiters: [String: Child] = [:]
            for name in Self.kinds { waiters[name] = try Child([program, name, mirror.at(name)]) }
            try until("all to wait") { try mirror.status().waiting >= Self.kinds.count }
            try body(mirror, waiters)
        }
    }

    @Test("Whatever call a process waits in, SIGKILL ends it, and nothing but execve(2) leaves its wait behind")
    func killEach() throws {
        try withWaiters { mirror, waiters throws in
            for name in Self.kinds {
                waiters[name]?.kill(SIGKILL)
                #expect(try waiters[name]?.wait(seconds: 5).code == 128 + SIGKILL, "\(name)")
            }
            // The kernel tells nobody of the one that waits in execve(2).
            try until("all others to be forgotten") { try mirror.status().waiting == 1 }
            mirror.letGo()
            for name in Self.kinds { #expect(try File.sameContent(mirror.remote(name), mirror.at(name)), "\(name)") }
        }
    }

    @Test("Whatever call a process waits in, it gets the content when it comes")
    func answerEach() throws {
        try withWaiters { mirror, waiters throws in
            mirror.letGo()
            let wanted = Pattern.bytes(Self.place..<Self.place + 4096)
            for name in Self.kinds where name != "exec" {
                let output = try #require(try waiters[name]?.wait(seconds: 20))
                #expect(output.code == 0, "\(output)")
                var expected = Pattern.bytes(0..<(name == "open" ? 9000 : Self.size))
                switch name {
                case "write", "direct-write", "aio-write", "aio-direct-write", "ring-write", "ring-direct-write":
                    expected.replaceSubrange(
                        Self.place..<Self.place + 4096, with: repeatElement(UInt8(ascii: "x"), count: 4096))
                case "punch":
                    expected.replaceSubrange(Self.place..<Self.place + 4096, with: repeatElement(0, count: 4096))
                case "store": expected[Self.place] = UInt8(ascii: "x")
                case "copy-from", "copy-to":
                    expected.replaceSubrange(Self.place + 1 << 20..<Self.place + 1 << 20 + 4096, with: wanted)
                default:
                    #expect(
                        Array(output.out.utf8)
                            == (name == "open" ? [] : Array(String(decoding: wanted, as: UTF8.self).utf8)), "\(name)")
                }
                let got = try File.bytes(mirror.at(name))
                #expect(got == expected, "\(name)")
            }
            // It is no program.
            #expect(try waiters["exec"]?.wait(seconds: 20).code == ENOEXEC)
        }
    }

    @Test(
        "Behind a writer that waits, those who want the file for themselves wait; they go on when the writer is killed")
    func behindWriter() throws {
        try withMirror(mounting: ["--fill", "read"]) { mirror throws in
            for name in ["removed", "changed", "written", "cut"] {
                try Pattern.write(mirror.remote(name), size: Self.size)
            }
        } _: { mirror throws in
            try mirror.hold()
            let calls = [
                ("removed", "unlink $f or die $!"), ("changed", "chmod 0600, $f or die $!"),
                ("written", "open(F, '+<', $f); seek(F, 9000, 0); syswrite(F, 'y') or die $!"),
                ("cut", "truncate($f, 100) or die $!"),
            ]
            let writers = try calls.map { name, _ in
                try Child(["dd", "if=/dev/zero", "of=\(mirror.at(name))", "bs=10", "count=1", "seek=9", "conv=notrunc"])
            }
            try until("the writers to wait") { try mirror.status().waiting == calls.count }
            let others = try calls.map { name, call in
                try Child(["perl", "-e", "my $f = shift; \(call)", mirror.at(name)])
            }
            usleep(300_000)
            #expect(others.allSatisfy { $0.poll() == nil }, "the kernel's lock of the file is the writer's")
            // The second writer's own byte is missing too.
            #expect(try mirror.status().waiting == calls.count)
            for writer in writers { writer.kill(SIGKILL) }
            for writer in writers { #expect(try writer.wait(seconds: 5).code == 128 + SIGKILL) }
            for (index, other) in others.enumerated() where index != 2 { #expect(try other.wait(seconds: 5).code == 0) }
            others[2].kill(SIGKILL)
            #expect(try others[2].wait(seconds: 5).code == 128 + SIGKILL)
            #expect(access(mirror.at("removed"), F_OK) == -1)
            #expect(try File.stat(mirror.at("changed")).st_mode & 0o7777 == 0o600)
            #expect(try File.stat(mirror.at("cut")).st_size == 100)
            mirror.letGo()
        }
    }

    @Test("One who appends waits for nothing")
    func append() throws {
        try withMirror(mounting: ["--fill", "read"]) { mirror throws in
            try Pattern.write(mirror.remote("file"), size: Self.size + 10)
        } _: { mirror throws in
            try mirror.hold()
            let output = try run(["bash", "-c", "echo appended >>file"], in: mirror.mount, seconds: 10)
            #expect(output.code == 0, "\(output)")
            mirror.letGo()
            let expected = Pattern.bytes(0..<Self.size + 10) + Array("appended\n".utf8)
            let isRight = try File.bytes(mirror.at("file")) == expected
            #expect(isRight)
        }
    }

    private static let program = #"""
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <linux/aio_abi.h>
        #include <linux/io_uring.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/mman.h>
        #include <sys/sendfile.h>
        #include <sys/syscall.h>
        #include <sys/uio.h>
        #include <unistd.h>

        static char *space;

        static long aio(int file, int opcode, long offset)
        {
            aio_context_t context = 0;
            struct iocb request = { .aio_fildes = file, .aio_lio_opcode = opcode, .aio_buf = (unsigned long)space,
                .aio_nbytes = 4096, .aio_offset = offset }, *all = &request;
            struct io_event event;
            if (syscall(SYS_io_setup, 1, &context) < 0 || syscall(SYS_io_submit, context, 1, &all) != 1) return -1;
            if (syscall(SYS_io_getevents, context, 1, 1, &event, 0) != 1) return -1;
            return event.res;
        }

        static long ring(int file, int opcode, long offset)
        {
            struct io_uring_params p = { 0 };
            int ring = syscall(SYS_io_uring_setup, 1, &p);
            if (ring < 0) return -1;
            char *sq = mmap(0, p.sq_off.array + 4 * p.sq_entries, 3, MAP_SHARED, ring, IORING_OFF_SQ_RING);
            char *cq = mmap(0, p.cq_off.cqes + 64, 3, MAP_SHARED, ring, IORING_OFF_CQ_RING);
            struct io_uring_sqe *sqe = mmap(0, sizeof *sqe, 3, MAP_SHARED, ring, IORING_OFF_SQES);
            *sqe = (struct io_uring_sqe){ .opcode = opcode, .fd = file, .addr = (unsigned long)space, .len = 4096,
                .off = offset };
            *(unsigned *)(sq + p.sq_off.array) = 0;
            __atomic_store_n((unsigned *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
            if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) != 1) return -1;
            return ((struct io_uring_cqe *)(cq + p.cq_off.cqes))->res;
        }

        int main(int count, char **words)
        {
            const char *kind = words[1], *path = words[2];
            long place = 1 << 20 | 4096, to = place + (1 << 20), result = -1;
            int ends[2];
        #define IS(text) (strcmp(kind, text) == 0)
            if (IS("exec")) return execl(path, path, NULL), errno;
            int file = open(path, strstr(kind, "direct") ? O_RDWR | O_DIRECT : O_RDWR);
            if (IS("open")) return file < 0;
            space = aligned_alloc(4096, 4096);
            memset(space, 'x', 4096);
            pipe(ends);
            if (IS("read") || IS("direct-read")) result = pread(file, space, 4096, place);
            if (IS("write") || IS("direct-write")) result = pwrite(file, space, 4096, place);
            if (IS("preadv2")) result = preadv2(file, &(struct iovec){ space, 4096 }, 1, place, 0);
            if (IS("aio-read") || IS("aio-direct-read")) result = aio(file, IOCB_CMD_PREAD, place);
            if (IS("aio-write") || IS("aio-direct-write")) result = aio(file, IOCB_CMD_PWRITE, place);
            if (IS("ring-read") || IS("ring-direct-read")) result = ring(file, IORING_OP_READ, place);
            if (IS("ring-write") || IS("ring-direct-write")) result = ring(file, IORING_OP_WRITE, place);
            if (IS("splice")) result = splice(file, &place, ends[1], 0, 4096, 0);
            if (IS("sendfile")) result = sendfile(ends[1], file, &place, 4096);
            if (IS("splice") || IS("sendfile")) result = read(ends[0], space, 4096);
            // The target is another part of the file: missing too, or there already.
            if (IS("copy-to")) pread(file, space, 4096, place);
            if (strstr(kind, "copy")) result = copy_file_range(file, &place, file, &to, 4096, 0);
            if (IS("punch")) result = fallocate(file, 3, place, 4096) < 0 ? -1 : 4096;
            if (IS("load") || IS("store") || IS("populate") || IS("lock")) {
                char *bytes = mmap(0, 1 << 21, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
                if (IS("populate")) madvise(bytes + place, 4096, 22);
                if (IS("lock")) mlock(bytes + place, 4096);
                if (IS("store")) bytes[place] = 'x';
                else memcpy(space, bytes + place, 4096);
                result = 4096;
            }
            if (result != 4096) return perror(kind), 1;
            if (!strstr(kind, "write") && !strstr(kind, "copy")) fwrite(space, 1, 4096, stdout);
            return 0;
        }
        """#
}
