import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

/// Remote tiers that are asked through a network, and content that is compared with digests.
extension Scenario {
    private static func sources(_ mirror: Mirror) throws {
        for (index, name) in ["a", "b", "c"].enumerated() {
            try Pattern.write(mirror.remote(name), size: Scenario.size + index, seed: index)
        }
        try shell("mkdir d; echo small >'d/a b'; : >empty; find . -exec touch -d @1700000000 {} +", in: mirror.source)
    }

    /// A server gives what the directory `source` holds.
    private static func served(
        _ name: String, mounting: [String] = [], serve: @escaping @Sendable (Mirror) throws -> Void
    ) -> Scenario {
        Scenario(name: "\(name): digests, ranges, recall, release, and an object that is replaced", mounting: mounting)
        {
            mirror throws in
            try sources(mirror)
            try serve(mirror)
        } body: { mirror, frontEnd throws in
            let file = try File.open(mirror.at("a"))
            #expect(try file.bytes(1_000_001..<1_070_000) == Array(Scenario.content(0)[1_000_001..<1_070_000]))
            let recalled = try passhsm("recall", mirror.at("b"))
            #expect(recalled.code == 0, "\(recalled)")
            try mirror.await("b", "complete") { $0.state == "dual" && $0.flags.isEmpty }
            let released = try passhsm("release", mirror.at("b"))
            #expect(released.code == 0, "\(released)")
            try Pattern.write(mirror.remote("c"), size: Scenario.size + 2, seed: 9)
            try mirror.replaced?()
            #expect(File.readError(mirror.at("c")) == EIO)
            try mirror.await("c", "stale") { $0.flags.contains("stale") }
            let digests = "find . -type f ! -path './.passhsm/*' ! -name c | sort | xargs -d '\\n' sha256sum"
            #expect(try shell(digests, in: mirror.mount) == shell(digests, in: mirror.source))
            // What is complete needs no server.
            try mirror.await("b", "complete") { $0.state == "dual" && $0.flags.isEmpty }
            mirror.server = nil
            #expect(try mirror.content("b") == Scenario.content(1))
        }
    }

    @Sendable private static func serveBucket(_ kind: S3Server.Kind, _ mirror: Mirror) throws {
        let store = try S3Server(kind, root: mirror.scratch.path)
        mirror.server = store
        let source = mirror.source
        mirror.replaced = { [weak store] in try store?.fill(from: source) }
        try store.fill(from: source)
        mirror.location = "s3://source"
        mirror.importArguments = ["--endpoint", store.endpoint]
        mirror.environment = S3Server.environment
    }

    @Sendable private static func serveTree(_ mirror: Mirror) throws {
        let nginx = try Nginx(serving: mirror.source, in: mirror.scratch.path + "/nginx")
        mirror.server = nginx
        mirror.location = nginx.url
    }

    private static func digests(_ name: String, mounting: [String], isStrict: Bool) -> Scenario {
        Scenario(name: name, mounting: mounting) { mirror throws in
            try sources(mirror)
            try Trees.noteDigest(mirror.remote("a"), isRight: true)
            try Trees.noteDigest(mirror.remote("b"), isRight: false)
        } body: { mirror, _ throws in
            #expect(try mirror.content("a") == Scenario.content(0))
            try mirror.await("a", "complete") { $0.state == "dual" && $0.flags.isEmpty }
            for _ in 0..<2 {
                #expect(File.readError(mirror.at("b")) == EIO)
                try mirror.await("b", "the cause") { $0.lastError?.contains("sha256:") == true }
            }
            if isStrict {
                #expect(File.readError(mirror.at("c")) == EIO)
                try mirror.await("c", "nothing") { $0.presentBytes == 0 }
            } else {
                #expect(try mirror.content("c") == Scenario.content(2))
            }
            let output = try passhsm("release", mirror.at("a"))
            #expect(output.code == 0, "\(output)")
            #expect(try mirror.content("a") == Scenario.content(0))
        }
    }

    static let remotes: [Scenario] = [
        served("a web server") { try serveTree($0) },
        served("a web server", mounting: ["--fill", "read"]) { try serveTree($0) },
        served("an S3 store") { try serveBucket(.moto, $0) },
        served("another S3 store", mounting: ["--fill", "read"]) { try serveBucket(.rclone, $0) },
        digests(
            "content that differs from its digest is EIO, and what has none is read", mounting: [], isStrict: false),
        digests(
            "content that differs from its digest is EIO, and what has none too", mounting: ["--verify", "strict"],
            isStrict: true),
        digests(
            "content that differs from its digest is EIO, and what has none too",
            mounting: ["--verify", "strict", "--fill", "read"], isStrict: true),
    ]
}
