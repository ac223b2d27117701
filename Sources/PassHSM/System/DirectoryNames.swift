import Glibc

/// The names in small directories: those of /proc, and our own.
package enum DirectoryNames {
    /// Without `.` and `..`; names that are not UTF-8 are left out. Empty when it cannot be read.
    package static func of(_ directory: Descriptor) -> [String] {
        // fdopendir takes the descriptor over, and moves its offset.
        guard let own = try? Descriptor.open(at: directory.raw, ".", O_RDONLY | O_DIRECTORY),
            let stream = fdopendir(dup(own.raw))
        else { return [] }
        defer { closedir(stream) }
        var names = [String]()
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(validating: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if let name, name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    /// The same by path.
    package static func of(_ path: String) -> [String] {
        guard let directory = try? Descriptor.open(path, O_RDONLY | O_DIRECTORY) else { return [] }
        return of(directory)
    }
}
