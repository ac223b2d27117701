import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// `passhsm import` as a command: stubs of everything, and updates that harm nothing local.
    @Suite struct ImportCommand {
        @Test("Stubs have everything but the content, and no data on the disk")
        func stubs() throws {
            try withMirror(mounting: nil) { mirror throws in
                try Trees.special(mirror.source)
            } _: { mirror throws in
                let question = Trees.Question.metadata.rawValue + " | grep -v passhsm"
                #expect(try shell(question, in: mirror.tree) == shell(question, in: mirror.source))
                #expect(try File.stat(mirror.tree + "/size-196625").st_blocks <= 8)
                #expect(try mirror.state("size-196625", inLower: true).state == "offline")
                #expect(try mirror.state("deep", inLower: true).kind == "directory")
            }
        }

        @Test("A file URL is a source, and the source and the lower directory may not be inside each other")
        func urls() throws {
            try withScratch { scratch in
                let mirror = try Mirror(scratch)
                try File.put("content", mirror.remote("file"))
                let output = try passhsm("import", "file://" + mirror.source, mirror.lower)
                #expect(output.code == 0, "\(output)")
                #expect(try mirror.state("file", inLower: true).state == "offline")
                for (source, lower) in [
                    (mirror.source, mirror.source), (mirror.source, mirror.source + "/inside"),
                    (scratch.path, scratch.path + "/x"),
                ] {
                    #expect(try passhsm("import", source, lower).code != 0)
                }
            }
        }

        @Test("What an import was told of mounts is recorded and holds for them, and their own options win")
        func settings() throws {
            try withMirror(mounting: nil) { mirror throws in
                try File.put("content", mirror.remote("file"))
            } _: { mirror throws in
                #expect(try mirror.optionsOfMount() == [:])
                try mirror.importSource("--offline", "error", "--cache", "none", "--deadline", "7")
                try mirror.importSource("--no-passthrough", "--cache", "shared")
                let all = ["offline": "error", "cache": "shared", "deadline": "7", "passthrough": "no"]
                #expect(try mirror.optionsOfMount() == all)
                try mirror.importSource()
                let arguments = ["--offline", "block", "--passthrough", "--verify", "strict", "--fill", "open"]
                let own = ["offline": "block", "passthrough": "yes", "verify": "strict", "fill": "open"]
                #expect(try mirror.optionsOfMount(arguments) == all.merging(own) { $1 })
                #expect(try mirror.optionsOfMount() == all, "a mount records nothing")
                #expect(try passhsm("import", mirror.source, mirror.lower, "--deadline", "0").code != 0)
                for line in [
                    "mount.offline=maybe", "mount.deadline=0", "mount.later=yes", "mount.passthrough=maybe",
                    "mount.trust-remote-rights=maybe",
                ] {
                    try shell("cp .passhsm/config ../kept; echo \"$1\" >>.passhsm/config", in: mirror.lower, [line])
                    let output = try passhsm("mount", mirror.lower, mirror.mount)
                    #expect(output.code != 0 && output.err.contains("the recorded setting"), "\(line): \(output)")
                    try shell("mv ../kept .passhsm/config", in: mirror.lower)
                }
                #expect(try mirror.optionsOfMount() == all)
            }
        }

        @Test(
            "Granules are what the import says, also of later imports, and a file keeps its own",
            arguments: [4, 256, 1024])
        func granules(kibibytes: Int) throws {
            let size = 3 << 20
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("before"), size: size, seed: 1)
            } _: { mirror throws in
                try mirror.importSource("--granule", "\(kibibytes)K")
                try Pattern.write(mirror.remote("file"), size: size, seed: 2)
                try mirror.importSource()
                try mirror.start(["--fill", "read"])
                for name in ["before", "file"] {
                    let file = try File.open(mirror.at(name), O_RDWR)
                    posix_fadvise(file.raw, 0, 0, POSIX_FADV_RANDOM)
                    let seed = name == "file" ? 2 : 1
                    let range = 1_500_000..<1_500_001
                    #expect(try file.bytes(range) == Pattern.bytes(range, seed: seed))
                    // Across the edges of granules: what is around it has to be fetched.
                    try file.put([1, 2, 3], at: (2 << 20) - 1)
                }
                let granule = kibibytes << 10
                let start = 1_500_000 / granule * granule
                #expect(try mirror.state("file").ranges.contains { $0[0] <= start && $0[1] >= start + granule })
                if granule == 4096 { #expect(try mirror.state("file").presentBytes < Trees.granule) }
                #expect(try mirror.state("before").granuleSize == Trees.granule)
                #expect(try mirror.state("file").granuleSize == granule)
                try mirror.stop()
                try mirror.start()
                for (seed, name) in ["before", "file"].enumerated() {
                    var expected = Pattern.bytes(0..<size, seed: seed + 1)
                    expected.replaceSubrange((2 << 20) - 1..<(2 << 20) + 2, with: [1, 2, 3])
                    #expect(try File.bytes(mirror.at(name)) == expected)
                }
                try mirror.stop()
                for wrong in ["0", "5K", "2M", "2048", "-4K", "x", "9223372036854775807M"] {
                    #expect(try passhsm("import", mirror.source, mirror.lower, "--granule", wrong).code == 64)
                }
            }
        }

        @Test("A second import brings what is new and changed, and leaves alone what is local or dirty")
        func update() throws {
            try withMirror { mirror throws in
                for name in ["same", "changed-cold", "changed-read", "gone", "dirty"] {
                    try Pattern.write(mirror.remote(name), size: 100_000, seed: 1)
                }
            } _: { mirror throws in
                _ = try File.bytes(mirror.at("changed-read"))
                try File.open(mirror.at("dirty"), O_WRONLY).put([1, 2, 3], at: 10)
                try File.put("mine", mirror.at("local"))
                try mirror.stop()
                usleep(20_000)
                for name in ["changed-cold", "changed-read", "dirty", "local", "new"] {
                    try Pattern.write(mirror.remote(name), size: 50_000, seed: 2)
                }
                try shell("rm gone", in: mirror.source)
                let output = try passhsm("import", mirror.source, mirror.lower)
                #expect(output.code == 1 && output.err.contains("conflict: local"), "what could not be brought is told")
                try mirror.start()
                #expect(try File.sameContent(mirror.at("same"), mirror.remote("same")))
                #expect(try File.sameContent(mirror.at("new"), mirror.remote("new")))
                #expect(try File.sameContent(mirror.at("changed-cold"), mirror.remote("changed-cold")))
                #expect(try File.bytes(mirror.at("local")) == Array("mine".utf8))
                let dirty = try File.bytes(mirror.at("dirty"))
                #expect(dirty.count == 100_000 && Array(dirty[10..<13]) == [1, 2, 3])
                #expect(dirty.suffix(1000) == Pattern.bytes(99_000..<100_000, seed: 1))
                #expect(try mirror.state("dirty").flags.contains("dirty"))
            }
        }

        @Test("An import that was killed goes on, and the result is whole")
        func resume() throws {
            try withScratch { scratch in
                let mirror = try Mirror(scratch)
                for folder in 0..<20 {
                    mkdir(mirror.remote("d\(folder)"), 0o755)
                    for file in 0..<200 { try File.put("\(folder) \(file)", mirror.remote("d\(folder)/f\(file)")) }
                }
                for _ in 0..<5 {
                    let child = try Child([Machine.program, "import", mirror.source, mirror.lower])
                    usleep(60_000)
                    child.kill(SIGKILL)
                    _ = try child.wait(seconds: 10)
                }
                try mirror.importSource()
                defer { _ = mirror.cleanUp() }
                try mirror.start()
                #expect(try Trees.difference(mirror.source, mirror.mount, .digests) == nil)
                #expect(try Trees.difference(mirror.source, mirror.mount, .metadata) == nil)
                try mirror.stop()
            }
        }

        @Test("After an import that broke off, mount, status and state say so, until one has come to its end")
        func brokenOff() throws {
            try withMirror(mounting: nil) { mirror throws in
                try File.put("content", mirror.remote("file"))
            } _: { mirror throws in
                for folder in 0..<100 {
                    mkdir(mirror.remote("d\(folder)"), 0o755)
                    for file in 0..<100 { try File.put("x", mirror.remote("d\(folder)/f\(file)")) }
                }
                let child = try Child([Machine.program, "import", mirror.source, mirror.lower])
                try until("its first files") { access(mirror.tree + "/d0/f0", F_OK) == 0 }
                child.kill(SIGKILL)
                _ = try child.wait(seconds: 10)
                let output = try passhsm("mount", mirror.lower, mirror.mount, "--log", mirror.logPath)
                let text = "this directory was interrupted"
                #expect(output.code == 0 && output.out.contains("WARNING") && output.out.contains(text), "\(output)")
                #expect(try mirror.status().warnings.first?.contains(text) == true)
                #expect(try mirror.state("file").warning?.contains(text) == true)
                #expect(try passhsm("state", mirror.at("file")).out.contains(text))
                #expect(try passhsm("unmount", mirror.mount).code == 0)
                #expect(try mirror.state("file", inLower: true).warning?.contains(text) == true)
                try mirror.importSource()
                try mirror.start()
                #expect(try mirror.status().warnings == [] && mirror.state("file").warning == nil)
                try mirror.stop()
            }
        }

        @Test("A lower directory inside another one, or inside a mount of one, is neither imported nor mounted")
        func nested() throws {
            try withMirror { mirror throws in
                try File.put("content", mirror.remote("file"))
            } _: { mirror throws in
                let inner = mirror.scratch.path + "/inner", other = mirror.scratch.path + "/other"
                try shell("mkdir \"$1\" \"$2\"; echo x >\"$1/x\"", [other, inner])
                #expect(try passhsm("import", other, inner).code == 0)
                let inMount = try passhsm("import", other, mirror.mount + "/new")
                #expect(inMount.code != 0 && inMount.err.contains("inside \(mirror.mount)"), "\(inMount)")
                try mirror.stop()
                for path in ["new", "sub/deeper"] {
                    mkdir(mirror.lower + "/sub", 0o755)
                    let output = try passhsm("import", other, mirror.lower + "/" + path)
                    #expect(output.code != 0 && output.err.contains("inside \(mirror.lower)"), "\(output)")
                }
                try shell("mv \"$1\" \"$2/inner\"", [inner, mirror.lower])
                let output = try passhsm("mount", mirror.lower + "/inner", mirror.lower + "/inner")
                #expect(output.code != 0 && output.err.contains("inside \(mirror.lower)"), "\(output)")
                // The same directory again is no other one.
                try mirror.importSource()
            }
        }

        @Test(
            "A configuration that is there and cannot be read is not taken for none", arguments: ["link", "directory"])
        func unreadable(kind: String) throws {
            try withMirror(mounting: nil) { mirror throws in
                try File.put("content", mirror.remote("file"))
            } _: { mirror throws in
                let make = kind == "link" ? "ln -s kept config" : "mkdir config"
                try shell("cd .passhsm; mv config kept; cp kept ../../kept; \(make)", in: mirror.lower)
                for command in [["import", mirror.source, mirror.lower], ["mount", mirror.lower, mirror.mount]] {
                    let output = try run([Machine.program] + command)
                    #expect(output.code != 0 && output.err.contains("configuration cannot be read"), "\(output)")
                }
                try shell(
                    "cmp kept lower/.passhsm/kept; test -L lower/.passhsm/config -o -d lower/.passhsm/config",
                    in: mirror.scratch.path)
            }
        }

        @Test("An unmounted lower directory does not show stubs as content: the state says what they are")
        func stateWithoutDaemon() throws {
            try withMirror(mounting: nil) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 100_000)
            } _: { mirror throws in
                let state = try mirror.state("file", inLower: true)
                #expect(state.state == "offline" && state.size == 100_000 && state.presentBytes == 0)
                #expect(state.remoteKey == "file" && state.remoteVersion?.isEmpty == false && state.ranges.isEmpty)
                let text = try passhsm("state", mirror.lower + "/file")
                #expect(text.code == 0 && text.out.contains("offline"))
            }
        }
    }
}
