import Foundation
import Testing

/// SEMANTICS.md names the test of each statement: the tests have to be there.
@Suite struct SemanticsTests {
    private static let package = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// The last column of each row of the tables of statements.
    private static func columns() throws -> [(line: Int, text: String)] {
        let page = try String(contentsOf: package.appendingPathComponent("SEMANTICS.md"), encoding: .utf8)
        var isStatements = false
        var result: [(line: Int, text: String)] = []
        for (index, line) in page.components(separatedBy: "\n").enumerated() {
            if line == "| Statement | Test |" {
                isStatements = true
            } else if !line.hasPrefix("|") {
                isStatements = false
            } else if isStatements, !line.hasPrefix("|---") {
                let cells = line.dropFirst(2).dropLast(2).components(separatedBy: " | ")
                result.append((index + 1, cells[cells.count - 1]))
            }
        }
        return result
    }

    /// Names of tests in a column: `Folder/Name`, `Name` or `Name+Topic`; remarks in parentheses are not looked at.
    private static func names(_ column: String) -> [String] {
        column.replacing(#/\([^)]*\)/#, with: "").split(separator: ",").map {
            $0.trimmingCharacters(in: .whitespaces)
        }.filter { !$0.isEmpty }
    }

    /// Paths below Tests without their extension, of files and folders.
    private static func tests() -> Set<String> {
        let folder = package.appendingPathComponent("Tests")
        let found = FileManager.default.enumerator(atPath: folder.path)?.allObjects as? [String] ?? []
        return Set(found.map { $0.hasSuffix(".swift") ? String($0.dropLast(6)) : $0 })
    }

    @Test func `each statement names a test that is there, or says that it is a limit`() throws {
        let tests = Self.tests()
        let columns = try Self.columns()
        #expect(columns.count > 150)
        for (line, column) in columns {
            let names = Self.names(column)
            #expect(!names.isEmpty || column == "(limit)", "SEMANTICS.md:\(line): \(column)")
            for name in names {
                let isThere = tests.contains { $0 == name || $0.hasSuffix("/" + name) }
                #expect(isThere, "SEMANTICS.md:\(line): there is no \(name)")
            }
        }
    }

    @Test func `links between documents lead to files`() throws {
        let pages = ["README", "ARCHITECTURE", "SEMANTICS", "CONTRIBUTING", "CHANGELOG", "SECURITY"].map { $0 + ".md" }
        let folder = Self.package.appendingPathComponent("docs")
        let docs = try FileManager.default.contentsOfDirectory(atPath: folder.path).map { "docs/" + $0 }
        for page in pages + docs {
            let url = Self.package.appendingPathComponent(page)
            for match in try String(contentsOf: url, encoding: .utf8).matches(of: #/\]\(([^)#:]+)\)/#) {
                let target = url.deletingLastPathComponent().appendingPathComponent(String(match.1))
                #expect(FileManager.default.fileExists(atPath: target.path), "\(page): \(match.1)")
            }
        }
    }
}
