import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// Remote tiers that are killed, and come back.
    @Suite struct Outages {
        private static let size = 2 << 20
        private static let files = 40

        /// What is read from, and how it is killed and started.
        private struct Server {
            let stop: () -> Void
            let start: () throws -> Void
        }

        enum Kind: String, CaseIterable { case http, s3 }

        private func withServer(
            _ kind: Kind, _ mounting: [String], files: Int = files, _ body: (Server, Mirror) throws -> Void
        ) throws {
            var server: Server?
            defer { server?.stop() }
            try withMirror(mounting: mounting) { mirror throws in
                for index in 0..<files {
                    try Pattern.write(mirror.remote("file-\(index)"), size: Self.size, seed: index)
                }
                switch kind {
                case .http:
                    let nginx = try Nginx(serving: mirror.source, in: mirror.scratch.path + "/nginx")
                    mirror.location = nginx.url
                    server = Server(stop: nginx.stop, start: nginx.start)
                case .s3:
                    let store = try S3Server(.rclone, root: mirror.scratch.path)
                    mirror.location = "s3://source"
                    mirror.importArguments = ["--endpoint", store.endpoint]
                    mirror.environment = S3Server.environment
                    server = Server(stop: store.stop, start: store.start)
                }
            } _: { mirror throws in
                try body(try #require(server), mirror)
            }
        }

        /// Programs that compare each file with the remote's; one that differs ends them with 9, an error with `onError`.
        private func readers(_ mirror: Mirror, onError: Int) throws -> [Child] {
            let script = """
                for i in $(seq 0 \(Self.files - 1)); do
                    cmp -s "$1/file-$i" "$2/file-$i"
                    case $? in 0) ;; 1) exit 9 ;; *) test \(onError) = 0 || exit \(onError) ;; esac
                done
                """
            return try (0..<4).map { _ in try Child(["bash", "-c", script, "bash", mirror.mount, mirror.source]) }
        }

        @Test(
            "A remote that is killed under load and comes back: with block no reader notices more than the time",
            arguments: Kind.allCases)
        func block(kind: Kind) throws {
            try withServer(kind, []) { server, mirror in
                let readers = try readers(mirror, onError: 8)
                try until("the load") { try mirror.status().counter("bytesFetched") > 10 << 20 }
                server.stop()
                try until("the outage to be known") { try mirror.status().remote.isDown }
                let shown = try run([Machine.program, "status", mirror.mount], environment: [:]).out
                #expect(shown.contains("down for") && shown.contains("127.0.0.1"), "\(shown)")
                // Longer than all retries.
                usleep(2_000_000)
                #expect(readers.allSatisfy { $0.poll() == nil })
                try server.start()
                for reader in readers { #expect(try reader.wait(seconds: 120).code == 0) }
                #expect(try mirror.status().counter("errors") == 0)
                #expect(try mirror.status().remote.cause == nil)
            }
        }

        @Test(
            "A remote that is killed under load and comes back: with error readers fail at once, and it heals by itself",
            arguments: Kind.allCases)
        func error(kind: Kind) throws {
            try withServer(kind, ["--offline", "error"]) { server, mirror in
                let readers = try readers(mirror, onError: 0)
                try until("the load") { try mirror.status().counter("bytesFetched") > 10 << 20 }
                server.stop()
                for reader in readers { #expect(try reader.wait(seconds: 120).code == 0) }
                try until("the outage to be known") { try mirror.status().remote.isDown }
                let absent = try #require(
                    try (0..<Self.files).first { try mirror.state("file-\($0)").presentBytes == 0 })
                let begin = Clock.now
                for _ in 0..<20 { #expect(File.readError(mirror.at("file-\(absent)")) == EIO) }
                #expect(Clock.now - begin < 5, "nobody waits")
                let state = try mirror.state("file-\(absent)")
                #expect(state.flags == ["error"] && state.lastError?.contains("127.0.0.1") == true, "\(state)")
                try server.start()
                try until("it to be noticed") { try !mirror.status().remote.isDown }
                for index in 0..<Self.files {
                    #expect(try File.sameContent(mirror.at("file-\(index)"), mirror.remote("file-\(index)")))
                    #expect(try !mirror.state("file-\(index)").flags.contains("lost"))
                }
            }
        }

        @Test(
            "With block a read ends at the deadline, the cause is an error and no loss, and what is complete can be read"
        )
        func deadline() throws {
            try withServer(.http, ["--deadline", "4"], files: 2) { server, mirror in
                #expect(try File.sameContent(mirror.at("file-0"), mirror.remote("file-0")))
                server.stop()
                let begin = Clock.now
                #expect(File.readError(mirror.at("file-1")) == EIO)
                #expect((2...10).contains(Clock.now - begin))
                try until("the note") { try mirror.state("file-1").flags == ["error"] }
                let state = try mirror.state("file-1")
                #expect(state.lastError?.contains("127.0.0.1") == true, "\(state)")
                #expect(try File.sameContent(mirror.at("file-0"), mirror.remote("file-0")))
            }
        }
    }
}
