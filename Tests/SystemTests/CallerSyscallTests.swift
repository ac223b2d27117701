import CLinux
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import HSMSystem

@Suite struct CallerSyscallTests {
    /// As /proc/PID/syscall has it: the number, six arguments, stack and instruction pointer.
    private func caller(_ number: Int, _ arguments: [Int32] = []) -> CallerSyscall? {
        let all = arguments + Array(repeating: 0, count: 6 - arguments.count)
        let fields = all.map { "0x" + String(UInt32(bitPattern: $0), radix: 16) }
        return CallerSyscall(Array("\(number) \(fields.joined(separator: " ")) 0x7ffd 0x7f00\n".utf8))
    }

    @Test func `Opens that only read are told from those that may change the file`() throws {
        let open = { (flags: Int32) in try #require(caller(PASSHSM_SYS_OPENAT, [-100, 0x1000, flags])).opensForReading }
        #expect(try open(O_RDONLY) && open(O_RDONLY | O_CLOEXEC | O_NOFOLLOW))
        #expect(try !open(O_WRONLY) && !open(O_RDWR) && !open(O_RDONLY | O_TRUNC) && !open(O_ACCMODE))
        #expect(try #require(caller(PASSHSM_SYS_OPEN, [0x1000, O_RDONLY])).opensForReading)
        #expect(try !#require(caller(PASSHSM_SYS_OPEN, [0x1000, O_RDWR])).opensForReading)
        #expect(try #require(caller(PASSHSM_SYS_EXECVE, [0x1000])).opensForReading)
    }

    @Test func `What is not known counts as a change`() throws {
        // openat2(2) has its flags in memory.
        #expect(try !#require(caller(437, [-100, 0x1000, 0x2000, 24])).opensForReading)
        #expect(try #require(caller(PASSHSM_SYS_TRUNCATE, [0x1000, 5])).mayTruncate)
        #expect(try !#require(caller(0, [3])).mayTruncate)
    }

    @Test func `Ranges are believed of calls that read them alone`() throws {
        for number in [PASSHSM_SYS_READ, PASSHSM_SYS_PREAD, PASSHSM_SYS_SENDFILE, PASSHSM_SYS_IO_URING_ENTER] {
            #expect(try #require(caller(number, [3])).readsRange)
        }
        // mmap(2), ioctl(2), execve(2), truncate(2); mmap2(2) and open(2) of 32-bit programs.
        for number in [9, 16, PASSHSM_SYS_EXECVE, PASSHSM_SYS_TRUNCATE, 192, 5] {
            #expect(try !#require(caller(number, [3])).readsRange)
        }
    }

    @Test(arguments: [
        "", "running", "-1 0x0 0x0", "257 0x0 0x0", "257 a b c d e f", "18446744073709551619 0x0 0x0 0x0 0x0 0x0 0x0",
        "257 0xg 0x0 0x0 0x0 0x0 0x0", "25a 0x0 0x0 0x0 0x0 0x0 0x0", "0 0x10000000000000000 0x0 0x0 0x0 0x0 0x0",
        "0 0x 0x0 0x0 0x0 0x0 0x0",
        "x 0x0 0x0 0x0 0x0 0x0 0x0",
    ])
    func `Anything else is nobody who can be told`(text: String) {
        #expect(CallerSyscall(Array(text.utf8)) == nil)
    }

    @Test func `The threads of this process are its own, and no others`() {
        // The runner's threads are several: this one need not be the first.
        #expect(CallerSyscall.isOwn(passhsm_gettid()) && CallerSyscall.isOwn(getpid()))
        #expect(
            !CallerSyscall.isOwn(1) && !CallerSyscall.isOwn(getppid()) && !CallerSyscall.isOwn(0)
                && !CallerSyscall.isOwn(-1))
    }

    @Test func `Calls that read ahead are told from those that wait for what they read`() throws {
        let ahead = [PASSHSM_SYS_READAHEAD, PASSHSM_SYS_FADVISE, PASSHSM_SYS_MADVISE, PASSHSM_SYS_MMAP]
        for number in ahead { #expect(try #require(caller(number, [3])).readsAhead) }
        for number in [PASSHSM_SYS_READ, PASSHSM_SYS_PREAD, PASSHSM_SYS_SENDFILE, PASSHSM_SYS_EXECVE] {
            let call = try #require(caller(number, [3]))
            #expect(!call.readsAhead && !call.waitsForOther)
        }
    }

    @Test func `A thread that runs is told from one that waits and one that is not there`() throws {
        let isOver = Mutex(false)
        let runner = Mutex<Int32>(0)
        let sleeper = Mutex<Int32>(0)
        try startThread(name: "runs") {
            runner.withLock { $0 = passhsm_gettid() }
            while !isOver.withLock({ $0 }) {}
        }
        try startThread(name: "sleeps") {
            sleeper.withLock { $0 = passhsm_gettid() }
            while !isOver.withLock({ $0 }) { sleep(1) }
        }
        defer { isOver.withLock { $0 = true } }
        while runner.withLock({ $0 }) == 0 || sleeper.withLock({ $0 }) == 0 { usleep(1000) }
        try until("the sleeper to sleep") {
            guard case .waits(let call) = CallerSyscall.activity(of: sleeper.withLock { $0 }, looks: 1) else {
                return false
            }
            return call.waitsForOther
        }
        guard case .runs = CallerSyscall.activity(of: runner.withLock { $0 }, looks: 3) else {
            Issue.record("it runs")
            return
        }
        guard case .waits(let call) = CallerSyscall.activity(of: sleeper.withLock { $0 }, looks: 3) else {
            Issue.record("it waits")
            return
        }
        #expect(!call.readsAhead && !call.readsRange && call.waitsForOther, "it sleeps")
        for thread: Int32 in [0, -1] {
            guard case .unknown = CallerSyscall.activity(of: thread, looks: 1) else {
                Issue.record("\(thread) cannot be told")
                return
            }
        }
        #expect(CallerSyscall.user(of: passhsm_gettid()) == getuid() && CallerSyscall.user(of: 0) == nil)
    }
}
