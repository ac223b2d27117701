import CLinux
import Glibc
import HSMSystem
import TestSupport
import Testing

@Suite struct FileWalkTests {
    /// A tree with a folder that is to stay hidden.
    private func withTree(_ body: (Descriptor, String) throws -> Void) throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        directory.shell("mkdir hidden a a/hidden; touch hidden/secret a/file a/hidden/file file")
        try body(Descriptor.open(directory.path, PASSHSM_O_PATH | O_DIRECTORY), directory.path)
    }

    private func items(_ top: Descriptor, _ path: String, recursive: Bool = true) -> [String] {
        var walk = FileWalk(top: top, paths: [Array(path.utf8)], isRecursive: recursive, hidden: "hidden")
        var result: [String] = []
        while let item = walk.next() {
            let name = String(decoding: item.path, as: UTF8.self)
            switch item.file {
            case .success: result.append(name)
            case .failure(let error): result.append("\(name): \(error.rawValue)")
            }
        }
        return result.sorted()
    }

    @Test(
        "What is hidden is not found by any path that leads to it",
        arguments: ["hidden", "./hidden", ".//./hidden/secret", "//hidden/secret", "hidden/.", "hidden/./secret"])
    func byPath(path: String) throws {
        try withTree { top, _ in
            for recursive in [true, false] {
                #expect(items(top, path, recursive: recursive) == ["\(path): \(ENOENT)"])
            }
        }
    }

    @Test("`..` is refused, also where it would lead back", arguments: ["a/../hidden", "a/..", "..", "./../x"])
    func parents(path: String) throws {
        try withTree { top, _ in #expect(items(top, path) == ["\(path): \(EINVAL)"]) }
    }

    @Test("A walk leaves it out, wherever it begins; another folder of the same name is gone into")
    func walks() throws {
        try withTree { top, path in
            #expect(items(top, "") == ["a/file", "a/hidden/file", "file"])
            #expect(items(top, ".") == ["./a/file", "./a/hidden/file", "./file"])
            #expect(items(top, "./a") == ["./a/file", "./a/hidden/file"])
            // Moved while it is walked.
            var walk = FileWalk(top: top, paths: [Array("moved".utf8)], isRecursive: true, hidden: "hidden")
            rename("\(path)/hidden", "\(path)/moved")
            #expect(walk.next()?.file.map { _ in 0 } == .failure(Errno(rawValue: ENOENT)))
        }
    }
}

@Suite struct ExactPathTests {
    @Test("A directory is opened by its canonical path only: not through a symlink that took a place on the way")
    func exactly() throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let path = directory.path
        directory.shell("mkdir -p a/mount victim/mount")
        func open(_ name: String) throws(Errno) -> Descriptor {
            try Descriptor.openExactly(BytePath("\(path)/\(name)").cString)
        }
        #expect(try open("a/mount").stat().st_ino == BytePath("\(path)/a/mount").stat().st_ino)
        directory.shell("mv a away; ln -s victim a; ln -s away/mount last")
        #expect(throws: Errno(rawValue: ESTALE)) { try open("a/mount") }
        #expect(throws: Errno(rawValue: ENOTDIR)) { try open("last") }
        #expect(throws: Errno(rawValue: ENOENT)) { try open("gone") }
    }
}
