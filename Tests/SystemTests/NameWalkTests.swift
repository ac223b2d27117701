import CLinux
import Glibc
import HSMSystem
import TestSupport
import Testing

@Suite struct NameWalkTests {
    private func withTree(_ script: String, _ body: (Descriptor, String) throws -> Void) throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        directory.shell(script)
        try body(Descriptor.open(directory.path, PASSHSM_O_PATH | O_DIRECTORY), directory.path)
    }

    /// Paths in the order of the walk, which enters every directory; one that cannot be listed has a `!` behind it.
    private func paths(_ top: Descriptor, didEnter: (String) -> Void = { _ in }) throws -> [String] {
        var walk = try NameWalk(top: top, hiding: "hidden")
        var result: [String] = []
        while let step = try walk.next() {
            switch step {
            case .unlisted: result.append(String(decoding: walk.path, as: UTF8.self) + "!")
            case .name(let entry):
                let path = String(decoding: walk.path(of: entry.name), as: UTF8.self)
                result.append(path)
                if let directory = try? Descriptor.openDirectory(at: walk.current, entry.name) {
                    try walk.enter(directory, entry.name)
                    didEnter(path)
                }
            }
        }
        return result
    }

    @Test("Every name is met once, a directory before what is in it, and what is hidden at the top not at all")
    func all() throws {
        try withTree("mkdir -p hidden/x a/hidden/b c; touch a/f a/hidden/g; ln -s a link") { top, _ in
            let found = try paths(top)
            #expect(found.sorted() == ["a", "a/f", "a/hidden", "a/hidden/b", "a/hidden/g", "c", "link"])
            let inner = found.firstIndex(of: "a/hidden/g") ?? 0
            #expect(found.firstIndex(of: "a").map { $0 < inner } == true)
        }
    }

    @Test("A deep tree is gone through to its end, with more directories than stay open")
    func deep() throws {
        // Longer than any path that a system call takes.
        let script = #"perl -e 'for (1..600) { mkdir "dddddddd"; open(F, ">after"); close(F); chdir "dddddddd"; }'"#
        try withTree(script) { top, _ in
            let found = try paths(top)
            #expect(found.count == 1200)
        }
    }

    @Test("A directory that was removed before it is listed is a step of its own, and the walk goes on outside of it")
    func unlisted() throws {
        try withTree("mkdir -p a/b c/d e; touch a/f c/f e/f") { top, path in
            let found = try paths(top) { if $0 == "c" { system("rm -r \(path)/c") } }
            #expect(found.sorted() == ["a", "a/b", "a/f", "c", "c!", "e", "e/f"])
        }
    }
}
