import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// A web server as the remote tier: nginx, by HTTP, HTTPS and HTTP/2.
    @Suite struct HTTPMount {
        private static let size = 5 << 20

        /// Files only: a server tells of nothing else.
        private static func fill(_ path: String) throws {
            for (index, size) in [0, 1, 65_535, 65_536, 65_537, 196_625, 1 << 20, 1 << 20 + 1, size].enumerated() {
                try Pattern.write("\(path)/size-\(size)", size: size, seed: index)
            }
            try shell(
                """
                mkdir -p 'a b/c%20d' real; echo 1 > 'a b/c%20d/#?&;+"<>|\\'; echo 2 > "it's"; echo 3 > a:b; echo 4 > ~x
                echo 5 > $'new\\nline'; echo 6 > 'a b/ä€😀'; echo 7 > ' lead and trail '; echo 8 > -n
                { cd /usr; find include share/doc -type f -size -200k -print0 || true; } | head -z -n 1200 \
                    | tar -C /usr --null -T - -cf - | tar -C real -xf -
                find . -exec touch -d @1700000000 {} +
                """, in: path)
        }

        /// - Parameter choose: the URL to import.
        private func withServer(
            _ mounting: [String] = [], settings: String = "", fill: (String) throws -> Void = Self.fill,
            choose: (Nginx, Mirror) throws -> String = { server, _ in server.url },
            _ body: (Nginx, Mirror) throws -> Void
        ) throws {
            var server: Nginx?
            defer { server?.stop() }
            try withMirror(mounting: mounting) { mirror throws in
                try fill(mirror.source)
                let nginx = try Nginx(serving: mirror.source, in: mirror.scratch.path + "/nginx", settings: settings)
                server = nginx
                mirror.location = try choose(nginx, mirror)
            } _: { mirror throws in
                try body(try #require(server), mirror)
            }
        }

        @Test(
            "A cold mount of thousands of files has the server's names, sizes, times and digests",
            arguments: ["HTML", "JSON", "manifest", "HTTPS", "no ranges"])
        func digests(kind: String) throws {
            let settings = kind == "no ranges" ? "max_ranges 0;" : ""
            try withServer(settings: settings, choose: { try Self.choose(kind, $0, $1) }) { server, mirror in
                // Directories have the times of the import: no page tells theirs.
                let metadata = "find . -type f -printf '%p %s %T@\\n' -o -printf '%p\\n' | sort"
                for question in [Trees.Question.digests.rawValue, metadata] {
                    let answers = try [mirror.source, mirror.mount].map { try shell(question, in: $0) }
                    let lines = answers.map { Set($0.split(separator: "\n")) }
                    #expect(lines[0].count > 1000)
                    let difference = lines[0].symmetricDifference(lines[1])
                    #expect(difference.isEmpty, "\(difference.sorted().prefix(6))")
                }
                #expect(try mirror.status().counter("errors") == 0)
                let status = kind == "no ranges" ? "200" : "206"
                let reads = server.log.filter { $0[3] == "GET" && $0[2] == status }
                #expect(reads.count > 1000)
                let unexpected = reads.filter { read in
                    let isByHTTP2 = kind == "HTTPS" && !Self.isLarge(range: read[4])
                    return read[0] != (isByHTTP2 ? "HTTP/2.0" : "HTTP/1.1")
                }
                #expect(unexpected.isEmpty, "\(unexpected.prefix(6))")
                #expect(Set(server.log.map { $0[1] }).count < 200, "connections are used again")
            }
        }

        /// Whether a `Range` header asks for more than the least fetch: how much that is the server's speed decides.
        private static func isLarge(range: String) -> Bool {
            let ends = range.dropFirst("bytes=".count).split(separator: "-").compactMap { Int($0) }
            return ends.count == 2 && ends[1] - ends[0] >= 1 << 20
        }

        /// The URL that is imported, with what else that takes.
        private static func choose(_ kind: String, _ server: Nginx, _ mirror: Mirror) throws -> String {
            let manifest = mirror.scratch.path + "/manifest"
            switch kind {
            case "JSON": return server.url + "json"
            case "HTTPS":
                mirror.importArguments = ["--ca-file", server.authority]
                return server.secureURL
            case "manifest":
                let script = """
                    import json, os
                    for folder, _, names in os.walk('.'):
                        for path in (os.path.relpath(os.path.join(folder, name)) for name in names):
                            status = os.stat(path)
                            print(json.dumps({'path': path, 'size': status.st_size, 'mtime': status.st_mtime}))
                    """
                try shell("python3 -c \"$1\" >\"$2\"", in: mirror.source, [script, manifest])
                mirror.importArguments = ["--manifest", manifest]
                return server.url
            default: return server.url
            }
        }

        @Test("TLS before 1.2 is not spoken", arguments: [("TLSv1 TLSv1.1", false), ("TLSv1.2", true)])
        func versions(spoken: String, isAccepted: Bool) throws {
            try withScratch { scratch throws in
                let mirror = try Mirror(scratch)
                try File.put("x", mirror.source + "/file")
                // At its usual level OpenSSL itself has nothing older.
                let server = try Nginx(
                    serving: mirror.source, in: scratch.path + "/nginx",
                    settings: "ssl_protocols \(spoken); ssl_ciphers ALL:@SECLEVEL=0;")
                defer { server.stop() }
                let output = try passhsm("import", "--ca-file", server.authority, server.secureURL, mirror.lower)
                #expect((output.code == 0) == isAccepted, "\(output)")
                #expect(output.err.contains("the server does not support TLS 1.2 or newer") != isAccepted, "\(output)")
            }
        }

        @Test("A certificate of an unknown authority is not believed")
        func certificate() throws {
            try withScratch { scratch in
                let mirror = try Mirror(scratch)
                try File.put("content", mirror.remote("file"))
                let server = try Nginx(serving: mirror.source, in: scratch.path + "/nginx")
                defer { server.stop() }
                let output = try passhsm("import", server.secureURL, mirror.lower)
                #expect(output.code != 0 && output.err.contains("certificate is not trusted"), "\(output)")
                let plain = try passhsm("import", server.url.replacing("http:", with: "https:"), mirror.lower)
                #expect(plain.code != 0 && plain.err.contains("the server does not use TLS at this port"), "\(plain)")
            }
        }

        @Test("An object that is replaced or deleted: the old version where it is present, EIO elsewhere, told apart")
        func changed() throws {
            try withServer(["--fill", "read"]) { path in
                for name in ["replaced", "deleted"] { try Pattern.write("\(path)/\(name)", size: Self.size, seed: 1) }
            } _: { server, mirror in
                for name in ["replaced", "deleted"] { _ = try File.bytes(mirror.at(name), 0..<1000) }
                try Pattern.write(mirror.scratch.path + "/new", size: Self.size, seed: 2)
                rename(mirror.scratch.path + "/new", mirror.remote("replaced"))
                try shell("touch -d 2001-01-01 replaced; rm deleted", in: mirror.source)
                for (name, flag) in [("replaced", "stale"), ("deleted", "lost")] {
                    #expect(File.readError(mirror.at(name)) == EIO)
                    #expect(try mirror.state(name).flags.contains(flag), "\(mirror.log)")
                    #expect(try File.bytes(mirror.at(name), 0..<1000) == Pattern.bytes(0..<1000, seed: 1))
                }
            }
        }

        @Test("With --on-change refetch a replaced object is taken as a whole, with its size and time")
        func refetch() throws {
            try withServer(["--fill", "read", "--on-change", "refetch"]) { path in
                try Pattern.write("\(path)/file", size: Self.size, seed: 1)
            } _: { server, mirror in
                _ = try File.bytes(mirror.at("file"), 0..<1000)
                try Pattern.write(mirror.scratch.path + "/new", size: 3 << 20, seed: 2)
                try shell("touch -d 2001-01-01 new; mv new source/file", in: mirror.scratch.path)
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
                #expect(
                    try File.stat(mirror.at("file")).st_mtim.tv_sec == File.stat(mirror.remote("file")).st_mtim.tv_sec)
            }
        }

        @Test("Who may not read gets EPERM, and a secret is nowhere to be seen")
        func secrets() throws {
            try withServer(settings: "auth_basic x; auth_basic_user_file passwords;") { path in
                for name in ["file", "later"] { try Pattern.write("\(path)/\(name)", size: Self.size) }
            } choose: { server, mirror in
                // A password may have characters that a terminal obeys.
                let password = "geheimnis\t1"
                try File.put("user:{PLAIN}\(password)\n", mirror.scratch.path + "/nginx/passwords")
                mirror.environment = ["PASSHSM_HTTP_USER": "user", "PASSHSM_HTTP_PASSWORD": password]
                return server.url
            } _: { server, mirror in
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
                let shown = try shell(
                    """
                    ps -ef; cat "$1/log"; getfattr -R -d -m - "$1/lower"; "$2" status --json "$1/lower"
                    "$2" state --json "$1/lower/file"
                    """, [mirror.scratch.path, Machine.program])
                #expect(!shown.contains("geheimnis") && !shown.contains("Z2VoZWltbmlz"))
                try mirror.stop()
                #expect(try shell("cat .passhsm/config", in: mirror.lower).contains(server.url))
                #expect(try shell("grep -rl geheimnis . || true", in: mirror.lower) == "")
                #expect(try passhsm("release", mirror.lower + "/file").code == 1, "without the password")
                mirror.environment["PASSHSM_HTTP_PASSWORD"] = "wrong"
                try mirror.start()
                #expect(File.readError(mirror.at("later")) == EPERM)
                #expect(try mirror.state("later").flags == ["error"])
            }
        }
    }
}
