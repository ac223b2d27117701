import Foundation
import Glibc
import HSMSystem
import Testing

extension MountTests {
    /// What a mount does with set-user-ID files and devices.
    @Suite struct Rights {
        /// The options of the mount, and who a set-user-ID program of root's is when user 1234 runs it in there.
        private func probe(_ mirror: Mirror) throws -> (options: Set<String>, user: String) {
            let table = try String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)
            let line = table.split(separator: "\n").last { $0.split(separator: " ")[1] == mirror.mount }
            let options = line.map { $0.split(separator: " ")[3].split(separator: ",").map(String.init) }
            try shell("cp /usr/bin/id tool; chmod 4755 tool", in: mirror.mount)
            let output = try run(["setpriv", "--reuid", "1234", "--clear-groups", mirror.at("tool"), "-u"])
            return (Set(options ?? []), output.out.trimmingCharacters(in: .newlines))
        }

        @Test(
            "The mount of a web server's tree is nosuid and nodev, unless its rights are trusted",
            arguments: FrontEnd.allCases)
        func foreign(frontEnd: FrontEnd) throws {
            var server: Nginx?
            defer { server?.stop() }
            try withMirror(mounting: nil) { mirror throws in
                try shell("echo a >a; echo b >b", in: mirror.source)
                let nginx = try Nginx(serving: mirror.source, in: mirror.scratch.path + "/nginx")
                server = nginx
                mirror.location = nginx.url
                let manifest = mirror.scratch.path + "/manifest"
                try #"{"path": "a", "size": 2, "mode": "4755"}"#.write(
                    toFile: manifest, atomically: true, encoding: .utf8)
                mirror.importArguments = ["--manifest", manifest]
            } _: { mirror throws in
                #expect(try File.stat(mirror.tree + "/a").st_mode & 0o7777 == 0o755)
                try mirror.start(frontEnd.arguments)
                #expect(try mirror.content("a") == Array("a\n".utf8))
                let (options, user) = try probe(mirror)
                #expect(options.isSuperset(of: ["nosuid", "nodev"]) && user == "1234")
                try mirror.restart(frontEnd, ["--trust-remote-rights"])
                let (trusting, root) = try probe(mirror)
                #expect(trusting.isDisjoint(with: ["nosuid", "nodev"]) && root == "0")
                try mirror.stop()
                // What an import was told holds for mounts.
                try mirror.importSource("--trust-remote-rights")
                try mirror.start(frontEnd.arguments)
                #expect(try probe(mirror).user == "0")
            }
        }

        @Test("The mount of a directory is as the lower directory is", arguments: FrontEnd.allCases)
        func directory(frontEnd: FrontEnd) throws {
            try withMirror(mounting: frontEnd.arguments) { mirror throws in
                try shell("cp /usr/bin/id own; chmod 4755 own", in: mirror.source)
            } _: { mirror throws in
                let (options, user) = try probe(mirror)
                #expect(options.isDisjoint(with: ["nosuid", "nodev"]) && user == "0")
                #expect(try File.stat(mirror.at("own")).st_mode & 0o7777 == 0o4755)
            }
        }
    }
}
