import CFuse
import CLinux
import Glibc
import HSMFuseDoor
import HSMSystem
import TestSupport
import Testing

@testable import HSMFuse

@Suite struct LockTests {
    /// A file without a record, opened `count` times.
    private func withHandles(_ count: Int, _ body: (FuseFixture, UInt64, [UInt64]) throws -> Void) throws {
        try withFuse { fuse throws in
            try fuse.makeLocal("local", [1])
            let node = try fuse.lookup("local").nodeid
            let handles = try (0..<count).map { _ in try fuse.open(node).fh }
            try body(fuse, node, handles)
            for handle in handles { try fuse.close(node, handle) }
        }
    }

    /// flock(2) without waiting.
    private func tryLock(_ fuse: FuseFixture, _ node: UInt64, _ handle: UInt64, _ type: Int32) throws -> Int32 {
        try fuse.call(FUSE_SETLK, node, fuse.lockBody(handle, type)).code
    }

    /// flock(2) that may wait.
    private func lock(_ fuse: FuseFixture, _ node: UInt64, _ handle: UInt64, _ type: Int32) -> UInt64 {
        fuse.send(FUSE_SETLKW, node, fuse.lockBody(handle, type))
    }

    /// What a program that uses the lower directory gets.
    private func outside(_ fuse: FuseFixture, _ operation: Int32) throws -> Descriptor? {
        let file = try Descriptor.open(fuse.lower("local"), O_RDONLY)
        return passhsm_flock(file.raw, operation | LOCK_NB) == 0 ? file : nil
    }

    @Test("Shared locks are beside each other, exclusive ones alone, also on the lower file")
    func modes() throws {
        try withHandles(3) { fuse, node, handles throws in
            #expect(try tryLock(fuse, node, handles[0], F_RDLCK) == 0)
            #expect(try tryLock(fuse, node, handles[1], F_RDLCK) == 0)
            #expect(try tryLock(fuse, node, handles[2], F_WRLCK) == EWOULDBLOCK)
            #expect(try outside(fuse, LOCK_SH) != nil && outside(fuse, LOCK_EX) == nil)
            for handle in handles[..<2] { #expect(try tryLock(fuse, node, handle, F_UNLCK) == 0) }
            #expect(try tryLock(fuse, node, handles[2], F_WRLCK) == 0)
            #expect(try tryLock(fuse, node, handles[2], F_WRLCK) == 0, "a handle has one lock")
            #expect(try tryLock(fuse, node, handles[0], F_RDLCK) == EWOULDBLOCK)
            #expect(try outside(fuse, LOCK_SH) == nil)
            #expect(try tryLock(fuse, node, handles[2], F_UNLCK) == 0)
            #expect(try outside(fuse, LOCK_EX) != nil)
        }
    }

    @Test("A waiting lock is granted when the holder unlocks")
    func blocking() throws {
        try withHandles(3) { fuse, node, handles throws in
            #expect(try tryLock(fuse, node, handles[0], F_WRLCK) == 0)
            let first = lock(fuse, node, handles[1], F_RDLCK)
            let second = lock(fuse, node, handles[2], F_RDLCK)
            #expect(fuse.kernel.answer(to: first) == nil && fuse.kernel.answer(to: second) == nil)
            #expect(try tryLock(fuse, node, handles[0], F_UNLCK) == 0)
            // Both are readers: they are granted together, before the unlock is answered.
            #expect(fuse.kernel.answer(to: first)?.code == 0 && fuse.kernel.answer(to: second)?.code == 0)
            #expect(try outside(fuse, LOCK_EX) == nil)
        }
    }

    @Test("A downgrade lets waiting readers in; an upgrade waits for the others")
    func changes() throws {
        try withHandles(2) { fuse, node, handles throws in
            #expect(try tryLock(fuse, node, handles[0], F_WRLCK) == 0)
            let reader = lock(fuse, node, handles[1], F_RDLCK)
            #expect(try tryLock(fuse, node, handles[0], F_RDLCK) == 0)
            #expect(fuse.kernel.answer(to: reader)?.code == 0)
            let upgrade = lock(fuse, node, handles[0], F_WRLCK)
            #expect(fuse.kernel.answer(to: upgrade) == nil)
            #expect(try tryLock(fuse, node, handles[1], F_UNLCK) == 0)
            #expect(fuse.kernel.answer(to: upgrade)?.code == 0)
            #expect(try outside(fuse, LOCK_SH) == nil)
        }
    }

    @Test("INTERRUPT ends a wait with EINTR, and the holder's unlock then frees the file")
    func interrupted() throws {
        try withHandles(2) { fuse, node, handles throws in
            #expect(try tryLock(fuse, node, handles[0], F_WRLCK) == 0)
            let wait = lock(fuse, node, handles[1], F_WRLCK)
            _ = fuse.send(FUSE_INTERRUPT, 0, bytes(of: fuse_interrupt_in(unique: wait)))
            #expect(try fuse.kernel.wait(for: wait).code == EINTR)
            #expect(try tryLock(fuse, node, handles[0], F_UNLCK) == 0)
            #expect(try outside(fuse, LOCK_EX) != nil)
            // One that came before its request counts too.
            #expect(try tryLock(fuse, node, handles[0], F_WRLCK) == 0)
            let next = fuse.send(FUSE_ACCESS, 1, bytes(of: fuse_access_in())) + 4
            _ = fuse.send(FUSE_INTERRUPT, 0, bytes(of: fuse_interrupt_in(unique: next)))
            let early = lock(fuse, node, handles[1], F_WRLCK)
            #expect(try early == next && fuse.kernel.wait(for: early).code == EINTR)
        }
    }

    @Test("The close of its handle ends a lock")
    func close() throws {
        try withHandles(1) { fuse, node, handles throws in
            let other = try fuse.open(node).fh
            #expect(try tryLock(fuse, node, other, F_WRLCK) == 0)
            let wait = lock(fuse, node, handles[0], F_WRLCK)
            try fuse.close(node, other)
            #expect(fuse.kernel.answer(to: wait)?.code == 0)
            #expect(try outside(fuse, LOCK_SH) == nil)
            #expect(try tryLock(fuse, node, handles[0], F_UNLCK) == 0)
            #expect(try outside(fuse, LOCK_EX) != nil)
        }
    }

    @Test("A holder outside the mount excludes and is waited for")
    func outside() throws {
        try withHandles(2) { fuse, node, handles throws in
            var holder = try outside(fuse, LOCK_EX)
            #expect(holder != nil)
            #expect(try tryLock(fuse, node, handles[0], F_RDLCK) == EWOULDBLOCK)
            let waits = handles.map { lock(fuse, node, $0, F_RDLCK) }
            usleep(10_000)
            #expect(waits.allSatisfy { fuse.kernel.answer(to: $0) == nil })
            holder = nil
            for wait in waits { #expect(try fuse.kernel.wait(for: wait).code == 0) }
            #expect(try outside(fuse, LOCK_EX) == nil)
            _ = holder
        }
    }

    @Test("Unknown handles and kinds are refused")
    func refused() throws {
        try withHandles(1) { fuse, node, handles throws in
            #expect(try tryLock(fuse, node, 0xdead, F_RDLCK) == ESTALE)
            #expect(try tryLock(fuse, node, handles[0], 99) == EINVAL)
            #expect(try tryLock(fuse, node, handles[0], F_UNLCK) == 0)
        }
    }

    // MARK: The value

    /// Locks of three owners on a file whose lower lock succeeds while `isFree`.
    @Test("Random locks never break the rule: one writer alone, or readers")
    func model() {
        var random = SeededRandom()
        for _ in 0..<300 {
            var locks = FileLocks<Int>()
            var holders: [Int: FileLocks<Int>.Mode] = [:]
            var waiting: [UInt64: (owner: Int, mode: FileLocks<Int>.Mode)] = [:]
            var (isFree, number) = (true, UInt64(0))
            for _ in 0..<40 {
                var granted: [FileLocks<Int>.Waiter] = []
                let owner = random.below(4)
                if random.isTrue(20) { isFree.toggle() }
                let mayLock = isFree
                let lock: (FileLocks<Int>.Mode?) -> Bool = { $0 == nil || mayLock }
                switch random.below(4) {
                case 0, 1:
                    if waiting.values.contains(where: { $0.owner == owner }) { continue }
                    let mode: FileLocks<Int>.Mode = random.isTrue(50) ? .shared : .exclusive
                    let isRefused = locks.acquire(mode, for: owner, granted: &granted, lock) == .refused
                    if isRefused {
                        holders[owner] = nil
                        if random.isTrue(50) {
                            number += 1
                            locks.enqueue(.init(number: number, owner: owner, mode: mode))
                            waiting[number] = (owner, mode)
                        }
                    } else {
                        holders[owner] = mode
                    }
                case 2:
                    locks.release(owner, granted: &granted, lock)
                    holders[owner] = nil
                default:
                    if let some = waiting.keys.min(), random.isTrue(50) {
                        let (wasThere, isThere) = (locks.remove(some), locks.remove(some))
                        #expect(wasThere && !isThere)
                        waiting[some] = nil
                    } else {
                        locks.grantWaiting(&granted, lock)
                    }
                }
                for waiter in granted {
                    #expect(waiting.removeValue(forKey: waiter.number) != nil)
                    holders[waiter.owner] = waiter.mode
                }
                let writers = holders.values.count { $0 == .exclusive }
                #expect(writers == 0 || holders.count == 1)
                #expect(locks.isUnused == (holders.isEmpty && waiting.isEmpty))
            }
        }
    }
}
