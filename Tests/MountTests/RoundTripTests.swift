import FaultServers
import Foundation
import Glibc
import HSMSystem
import Synchronization
import TestSupport
import Testing

extension MountTests {
    /// How often a read goes to a remote that is far away, and how many reads do so at once.
    @Suite struct RoundTrips {
        private static let readers = 64
        /// A round trip, in seconds: long beside all that this machine does meanwhile.
        private static let trip = 2.0
        private static let size = 300_000

        enum Kind: String, CaseIterable { case http, https, s3 }

        /// A mount of so many files of a server that is a round trip away.
        private func withDistance(_ kind: Kind, files: Int, _ body: (Mirror) throws -> Void) throws {
            var server: Nginx?
            var store: S3Server?
            var distance: DelayProxy?
            defer {
                distance?.stop()
                server?.stop()
                store?.stop()
            }
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                for index in 0..<files {
                    try Pattern.write(mirror.remote("file-\(index)"), size: Self.size, seed: index)
                }
                if kind == .s3 {
                    store = try S3Server(.rclone, root: mirror.scratch.path)
                } else {
                    server = try Nginx(serving: mirror.source, in: mirror.scratch.path + "/nginx")
                }
                let port = try #require(store?.port ?? (kind == .https ? server?.securePort : server?.port))
                let proxy = try DelayProxy(to: port)
                distance = proxy
                switch kind {
                case .http: mirror.location = "http://127.0.0.1:\(proxy.port)/"
                case .https:
                    mirror.location = "https://127.0.0.1:\(proxy.port)/"
                    mirror.importArguments = ["--ca-file", server?.authority ?? ""]
                case .s3:
                    mirror.location = "s3://source"
                    mirror.importArguments = ["--endpoint", "http://127.0.0.1:\(proxy.port)"]
                    mirror.environment = S3Server.environment
                }
            } _: { mirror throws in
                distance?.setRoundTrip(.seconds(Self.trip))
                try body(mirror)
            }
        }

        /// How long each of many readers takes that begin at once, each with the first byte of a file of its own.
        private func crowd(_ files: Range<Int>, _ mirror: Mirror) throws -> [Double] {
            let times = Mutex<[Double]>([])
            let ended = DispatchSemaphore(value: 0)
            for index in files {
                let path = mirror.at("file-\(index)")
                Thread.detachNewThread {
                    let begin = Clock.now
                    let first = try? File.bytes(path, 0..<1)
                    let isRight = first == Pattern.bytes(0..<1, seed: index)
                    times.withLock { $0.append(isRight ? Clock.now - begin : .infinity) }
                    ended.signal()
                }
            }
            for _ in files { ended.wait() }
            return times.withLock { $0 }
        }

        @Test(
            "A read of what is absent takes one round trip, and 64 readers at once wait no longer than one does",
            arguments: Kind.allCases)
        func readers(kind: Kind) throws {
            let count = Self.readers
            try withDistance(kind, files: 2 * count + 1) { mirror throws in
                // Connections are made first.
                #expect(try crowd(0..<count, mirror).allSatisfy(\.isFinite))
                for range in [2 * count..<2 * count + 1, count..<2 * count] {
                    let times = try crowd(range, mirror)
                    #expect(times.allSatisfy { (Self.trip..<1.9 * Self.trip).contains($0) }, "\(times.sorted())")
                }
            }
        }

        /// How many requests for content were under way at once, of all that `body` makes.
        private func maxRequests(files: Int, _ body: (Mirror) throws -> Void) throws -> Int {
            var server: Nginx?
            var proxy: FaultProxy?
            defer {
                proxy?.stop()
                server?.stop()
            }
            let now = Mutex(0)
            let peak = Mutex(0)
            try withMirror { mirror throws in
                for index in 0..<files { try Pattern.write(mirror.remote("file-\(index)"), size: 1000, seed: index) }
                let nginx = try Nginx(serving: mirror.source, in: mirror.scratch.path + "/nginx")
                server = nginx
                let between = try FaultProxy(to: nginx.port)
                proxy = between
                mirror.location = between.url
            } _: { mirror throws in
                proxy?.spoil { _ in
                    let count = now.withLock {
                        $0 += 1
                        return $0
                    }
                    peak.withLock { $0 = max($0, count) }
                    usleep(300_000)
                    now.withLock { $0 -= 1 }
                }
                try body(mirror)
            }
            return peak.withLock { $0 }
        }

        @Test("However many files are read at once, no more requests are under way than are allowed")
        func bound() throws {
            let peak = try maxRequests(files: 200) { mirror throws in
                #expect(try crowd(0..<200, mirror).allSatisfy(\.isFinite))
            }
            #expect((48...64).contains(peak))
        }

        @Test("A recall of small files asks for many at once")
        func recall() throws {
            let peak = try maxRequests(files: 200) { mirror throws in
                #expect(try passhsm("recall", "-r", mirror.mount, seconds: 60).code == 0)
                for index in 0..<200 {
                    #expect(try File.bytes(mirror.at("file-\(index)")) == Pattern.bytes(0..<1000, seed: index))
                }
            }
            // Of the places for requests some are kept for readers.
            #expect((32...48).contains(peak))
        }
    }
}
