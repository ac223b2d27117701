import FaultServers
import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// Answers that are late, wrong, or of another version, between a mount and a web server or an S3 store.
    @Suite struct Faults {
        private static let size = 300_000

        enum Kind: String { case http, rclone, moto }

        /// What is behind the proxy.
        private struct Place {
            let proxy: FaultProxy
            let mirror: Mirror
            /// Nil for a web server.
            let store: S3Server?
        }

        /// A mount that reads through a proxy.
        private func withProxy(
            _ kind: Kind, _ mounting: [String], fill: (String) throws -> Void, _ body: (Place) throws -> Void
        ) throws {
            var place: Place?
            var server: Nginx?
            var store: S3Server?
            defer {
                place?.proxy.stop()
                server?.stop()
                store?.stop()
            }
            try withMirror(mounting: mounting) { mirror throws in
                try fill(mirror.source)
                if let kind = S3Server.Kind(rawValue: kind.rawValue) {
                    store = try S3Server(kind, root: mirror.scratch.path)
                    try store?.fill(from: mirror.source)
                } else {
                    server = try Nginx(serving: mirror.source, in: mirror.scratch.path + "/nginx")
                }
                let proxy = try FaultProxy(to: try #require(server?.port ?? store?.port))
                place = Place(proxy: proxy, mirror: mirror, store: store)
                mirror.location = store == nil ? proxy.url : "s3://source"
                if store != nil {
                    mirror.importArguments = ["--endpoint", proxy.url]
                    mirror.environment = S3Server.environment
                }
            } _: { _ throws in
                try body(try #require(place))
            }
        }

        /// What is done to each answer with content, and what comes of it.
        private struct Spoil {
            let name: String
            var errno = EIO
            var flags = ["error"]
            let fault: FaultProxy.Fault

            static func status(_ status: Int, _ errno: Int32 = EIO, _ flags: [String] = ["error"]) -> Spoil {
                Spoil(name: "\(status)", errno: errno, flags: flags) { reply in
                    reply = FaultServer.Reply(status: status, body: Array("<html>no XML".utf8))
                }
            }

            static let all: [Spoil] = [
                Spoil(name: "late", errno: 0, flags: []) { $0.delay = 300 },
                Spoil(name: "slow", errno: 0, flags: []) { $0.trickle = 50_000 },
                Spoil(name: "cut") { $0.cut = 50_000 }, Spoil(name: "cut at once") { $0.cut = 0 },
                Spoil(name: "longer than it is") { reply in
                    reply.headers["Content-Length"] = "\(reply.body.count + 10)"
                },
                Spoil(name: "shorter than it says") { reply in
                    reply.body.removeLast()
                    reply.headers["Content-Length"] = nil
                },
                Spoil(name: "another range") { reply in
                    reply.headers["Content-Range"] = "bytes 1-\(Faults.size)/\(Faults.size + 1)"
                },
                status(403, EPERM), status(404, EIO, ["error", "lost"]), status(412, EIO, ["error", "stale"]),
                status(416, EIO, ["error", "stale"]), status(429), status(500), status(503),
                Spoil(name: "silent") { $0.isSilent = true },
            ]
        }

        @Test(
            "Whatever is wrong with answers: the right bytes or an error whose kind is told, and the right bytes after it",
            arguments: [Kind.http, .rclone])
        func answers(kind: Kind) throws {
            try withProxy(kind, ["--deadline", "3", "--offline", "error"]) { path in
                for index in Spoil.all.indices { try Pattern.write("\(path)/\(index)", size: Self.size, seed: index) }
            } _: { place in
                let (proxy, mirror) = (place.proxy, place.mirror)
                for (index, spoil) in Spoil.all.enumerated() {
                    let name = "\(index)"
                    proxy.spoil(spoil.fault)
                    #expect(File.readError(mirror.at(name)) == spoil.errno, "\(spoil.name)")
                    if spoil.errno != 0 {
                        try until("\(spoil.name) to be told") { try mirror.state(name).flags.sorted() == spoil.flags }
                    }
                    proxy.spoil(nil)
                    try until("\(spoil.name) to be over") { File.readError(mirror.at(name)) == 0 }
                    #expect(
                        try File.bytes(mirror.at(name)) == Pattern.bytes(0..<Self.size, seed: index), "\(spoil.name)")
                }
            }
        }

        @Test(
            "An object that is replaced, deleted or truncated while it is read: EIO behind the old bytes, or all of them",
            arguments: [Kind.http, .moto])
        func changes(kind: Kind) throws {
            let size = 32 << 20
            let changes = [("replaced", "stale"), ("deleted", "lost"), ("truncated", "stale")]
            try withProxy(kind, ["--fill", "read", "--offline", "error"]) { path in
                for (name, _) in changes { try Pattern.write("\(path)/\(name)", size: size, seed: 1) }
            } _: { place in
                let mirror = place.mirror
                try Pattern.write(mirror.scratch.path + "/new", size: size + 1, seed: 2)
                for (name, flag) in changes {
                    // The store is changed by a program that takes a second to start.
                    let piece = kind == .http ? 65_536 : 8192
                    place.proxy.spoil { $0.trickle = piece }
                    let before = try mirror.status().counter("bytesFetched")
                    let copy = mirror.scratch.path + "/copy"
                    let reader = try Child(["bash", "-c", "cat \"$1\" >\"$2\"", "bash", mirror.at(name), copy])
                    try until("a part") { try mirror.status().counter("bytesFetched") > before + 2 << 20 }
                    try Self.change(name, place)
                    #expect(try reader.wait(seconds: 60).code == 1, "\(name): most of it was not there")
                    let got = try File.bytes(copy)
                    #expect(got.count < size && got == Pattern.bytes(0..<got.count, seed: 1), "\(name)")
                    #expect(try mirror.state(name).flags.contains(flag), "\(name): \(mirror.log)")
                }
            }
        }

        private static func change(_ name: String, _ place: Place) throws {
            let mirror = place.mirror
            switch (name, place.store) {
            case ("replaced", nil): rename(mirror.scratch.path + "/new", mirror.remote(name))
            case ("deleted", nil): unlink(mirror.remote(name))
            case (_, nil): truncate(mirror.remote(name), 1 << 20)
            case (_, let store?):
                try store.python(
                    """
                    if a[0] == 'deleted': s3.delete_object(Bucket='source', Key=a[0])
                    elif a[0] == 'replaced': s3.upload_file(a[1], 'source', a[0])
                    else: s3.put_object(Bucket='source', Key=a[0], Body=open(a[2], 'rb').read()[:1 << 20])
                    """, [name, mirror.scratch.path + "/new", mirror.remote(name)])
            }
        }
    }
}
