import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// Power cuts: the lower file system loses at a random moment what it has not written.
    ///
    /// `PASSHSM_SEED=N` replays one run's choices; `PASSHSM_CUTS=N` sets how many cuts there are.
    @Suite struct Power {
        private static let environment = ProcessInfo.processInfo.environment
        private static let cuts = Int(environment["PASSHSM_CUTS"] ?? "") ?? (Machine.isLong ? 200 : 10)
        private static let files = 10

        private static func size(_ index: Int) -> Int { index % 3 == 0 ? 3 << 20 : 40_000 + index * 70_011 }

        /// A mirror whose lower directory is on a disk of its own.
        private func withDisk(
            _ kind: Disk.Kind, _ prepare: (Mirror) throws -> Void, _ body: (Mirror, Disk) throws -> Void
        ) throws {
            try withScratch { scratch in
                let disk = try Disk(kind, at: scratch.path + "/lower")
                defer { disk.remove() }
                let mirror = try Mirror(scratch, apart: true)
                defer { _ = mirror.cleanUp() }
                try prepare(mirror)
                try mirror.importSource()
                try shell("sync -f \"$1\"", [mirror.lower])
                try body(mirror, disk)
                if mirror.pid != 0 { try mirror.stop() }
                try disk.unmount()
            }
        }

        @Test(
            "After a power cut every byte is the remote's or a write, and every synced write is there",
            arguments: Disk.Kind.withShutdown)
        func cuts(kind: Disk.Kind) throws {
            var random = SeededRandom(for: "power cuts on \(kind)")
            let ledgers = (0..<Self.files).map { index in
                Ledger("f\(index)", Pattern.bytes(0..<Self.size(index), seed: index))
            }
            try withDisk(kind) { mirror throws in
                for index in 0..<Self.files {
                    try Pattern.write(mirror.remote("f\(index)"), size: Self.size(index), seed: index)
                }
                try shell("touch -d 2020-01-01 *", in: mirror.source)
            } _: { mirror, disk throws in
                for cut in 0..<Self.cuts {
                    try work(mirror, disk, ledgers, &random)
                    try mirror.killDaemon()
                    try disk.unmount()
                    try disk.mount()
                    try check(mirror, ledgers, "\(kind), seed \(random.seed), cut \(cut)")
                }
            }
        }

        /// Reads, writes, syncs and releases until the power is gone.
        private func work(_ mirror: Mirror, _ disk: Disk, _ ledgers: [Ledger], _ random: inout SeededRandom) throws {
            try mirror.start(["--fill", Bool.random(using: &random) ? "read" : "auto"], remote: "bandwidth=60M")
            let release = ["release", "-r", "--quiet", mirror.mount]
            if Bool.random(using: &random) { _ = try run([Machine.program] + release) }
            let helpers = try (0..<2).map { index in
                try Child(
                    index == 0
                        ? [
                            "bash", "-c",
                            "while :; do for f in $(ls \"$1\" | shuf); do cat \"$1/$f\"; done; done >/dev/null 2>&1",
                            "bash", mirror.mount,
                        ]
                        : ["bash", "-c", "while :; do \"$@\"; done >/dev/null 2>&1", "bash", Machine.program] + release)
            }
            defer { helpers.forEach { $0.kill(SIGKILL) } }
            let delay = UInt32.random(in: 1000..<700_000, using: &random)
            let cut = PowerCut(disk, after: delay)
            while !cut.isDone {
                let ledger = ledgers[Int.random(in: 0..<ledgers.count, using: &random)]
                let start = Int.random(in: 0..<ledger.size, using: &random)
                let count = min(ledger.size - start, Int.random(in: 1..<300_000, using: &random))
                let isWhole = Bool.random(using: &random)
                let offset = isWhole ? start & ~0xffff : start
                let bytes = Pattern.bytes(offset..<offset + count, seed: Int.random(in: 100..<200, using: &random))
                let isSynced = Int.random(in: 0..<3, using: &random) > 0
                do {
                    let file = try File.open(mirror.at(ledger.name), O_WRONLY)
                    ledger.attempt(bytes, at: offset)
                    try file.put(bytes, at: offset)
                    ledger.succeeded()
                    guard isSynced else { continue }
                    try file.fsync()
                    ledger.synced()
                } catch {
                    usleep(2000)
                }
            }
            try cut.join()
        }

        private func check(_ mirror: Mirror, _ ledgers: [Ledger], _ when: String) throws {
            try mirror.start(["--fill", "read"])
            for ledger in ledgers {
                let content = try File.bytes(mirror.at(ledger.name))
                if let fault = ledger.fault(in: content) {
                    let byte = content.indices.contains(fault) ? Int(content[fault]) : -1
                    throw Failure("\(when): byte \(fault) of \(ledger.name) is \(byte)")
                }
                ledger.settle(content)
            }
            try shell("sync -f \"$1\"", [mirror.lower])
            try mirror.stop()
        }

        @Test("The check sees it when the map is written before the data", arguments: Disk.Kind.withShutdown)
        func brokenOrder(kind: Disk.Kind) throws {
            for isSwapped in [false, true] {
                let ledger = Ledger("f", Pattern.bytes(0..<3 << 20))
                try withDisk(kind) { mirror throws in
                    try Pattern.write(mirror.remote("f"), size: 3 << 20)
                } _: { mirror, disk throws in
                    let failpoints = isSwapped ? "order:on,commit.unsynced:hang" : "commit.recorded:hang"
                    try mirror.start(["--fill", "read"], failpoints: failpoints)
                    // One place only, so that nothing is read ahead and the file does not become complete.
                    _ = try File.bytes(mirror.at("f"), 1 << 20..<1 << 20 + 4096)
                    try until("the map") {
                        let folder = mirror.lower + "/.passhsm/partial"
                        return try !FileManager.default.contentsOfDirectory(atPath: folder).isEmpty
                    }
                    try until("the failpoint behind the record") { hangs(mirror.pid) }
                    // Takes the journal along, with the record in it, but none of the file's data.
                    try shell("dd if=/dev/zero of=\"$1/any\" bs=1 count=1 conv=fsync status=none", [mirror.lower])
                    try disk.cutPower()
                    try mirror.killDaemon()
                    try disk.unmount()
                    try disk.mount()
                    try mirror.start(["--fill", "read"])
                    let fault = try ledger.fault(in: File.bytes(mirror.at("f")))
                    #expect((fault != nil) == isSwapped, "swapped: \(isSwapped)")
                }
            }
        }
    }
}

/// Cuts the power after a while, on a thread of its own.
private final class PowerCut: @unchecked Sendable {
    // Sendable: the fields are used under the lock.
    private let lock = NSLock()
    private var result: Result<Void, any Error>?

    init(_ disk: Disk, after microseconds: UInt32) {
        let disk = UncheckedDisk(disk: disk)
        Thread.detachNewThread { [self] in
            usleep(microseconds)
            let result = Result { try disk.disk.cutPower() }
            lock.withLock { self.result = result }
        }
    }

    private struct UncheckedDisk: @unchecked Sendable {
        // Sendable: cutting the power only opens the path.
        let disk: Disk
    }

    var isDone: Bool { lock.withLock { result != nil } }
    func join() throws { try lock.withLock { try result?.get() } }
}
